import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { OciLayout } from '../../test/support/oci-layout.ts'
import { buildDebianLayers, debianRecipe } from './debian-layers.ts'
import { cached, type ImageCacheOptions } from './image-cache.ts'
import type { LabImage } from './lab-image.ts'
import { oddLowerLayer, oddUpperLayer } from './odd-layers.ts'

/** Raised when the hand-made layers or the layout change. */
const layoutVersion = 1

/** The uppermost layer of the Debian image removes these. */
const removedFromDebian = ['etc/issue', 'usr/share/perl5', 'usr/lib/git-core/git-http-push']

const config = { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['/bin/sh'], WorkingDir: '/' }

const debianTags = ['packages', 'gzip', 'mixed'] as const
const oddTags = ['lower', 'odd'] as const

/**
 * A system as hosts run it. `packages` has Debian's essential packages and an application, in two gzip layers. `gzip`
 * has the two odd layers on top. `mixed` has the same layers, but one with zstd and one as a plain tar. The first build
 * takes a minute and needs the network; later calls find them in the cache.
 */
export async function debianImages(
  options: ImageCacheOptions = {},
): Promise<Record<(typeof debianTags)[number], LabImage>> {
  const layoutDirectory = await cached(
    'debian',
    { layoutVersion, debianRecipe, removedFromDebian, debianTags },
    options,
    async (directory, work) => {
      const { base, application } = await buildDebianLayers(work, options)
      const odd = await writeOddLayers(work, removedFromDebian)
      const layout = await OciLayout.create(directory)
      const baseLayer = await layout.addLayer(base, 'gzip', options)
      const oddUpper = await layout.addLayer(odd.upper, 'gzip', options)
      const gzip = [
        await layout.addLayer(application, 'gzip', options),
        await layout.addLayer(odd.lower, 'gzip', options),
      ]
      const mixed = [
        await layout.addLayer(application, 'zstd', options),
        await layout.addLayer(odd.lower, 'none', options),
      ]
      await layout.addImage('packages', [baseLayer, gzip[0]!], config)
      await layout.addImage('gzip', [baseLayer, ...gzip, oddUpper], config)
      await layout.addImage('mixed', [baseLayer, ...mixed, oddUpper], config)
    },
  )
  return {
    packages: { layoutDirectory, tag: 'packages' },
    gzip: { layoutDirectory, tag: 'gzip' },
    mixed: { layoutDirectory, tag: 'mixed' },
  }
}

/** An image of two hand-made layers of a few megabytes. Takes a second, and needs neither network nor root. */
export async function oddImage(options: ImageCacheOptions = {}): Promise<LabImage> {
  return (await oddImages(options)).both
}

/** {@link oddImage}, and an image of its lower layer alone. */
export async function oddImages(options: ImageCacheOptions = {}): Promise<{ lower: LabImage; both: LabImage }> {
  const layoutDirectory = await cached('odd', { layoutVersion, oddTags }, options, async (directory, work) => {
    const odd = await writeOddLayers(work)
    const layout = await OciLayout.create(directory)
    const lower = await layout.addLayer(odd.lower, 'gzip', options)
    await layout.addImage('lower', [lower], config)
    await layout.addImage('odd', [lower, await layout.addLayer(odd.upper, 'gzip', options)], config)
  })
  return { lower: { layoutDirectory, tag: 'lower' }, both: { layoutDirectory, tag: 'odd' } }
}

async function writeOddLayers(
  work: string,
  removed: readonly string[] = [],
): Promise<{ lower: string; upper: string }> {
  const [lower, upper] = [join(work, 'odd-lower.tar'), join(work, 'odd-upper.tar')]
  await writeFile(lower, oddLowerLayer())
  await writeFile(upper, oddUpperLayer(removed))
  return { lower, upper }
}
