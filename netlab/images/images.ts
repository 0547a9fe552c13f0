import { createHash } from 'node:crypto'
import { access, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { buildDebianLayers, debianRecipe } from './debian-layers.ts'
import { OciLayout } from '../../test/support/oci-layout.ts'
import { oddLowerLayer, oddUpperLayer } from './odd-layers.ts'
import { run } from '../hosts/process.ts'

/** An image in an OCI layout. */
export interface LabImage {
  layoutDirectory: string
  tag: string
}

export interface ImageCacheOptions {
  /** Where what was built stays between runs; `$P2PFS_LAB_CACHE`, or else `~/.cache/p2pfs-lab`. */
  cacheDirectory?: string
  signal?: AbortSignal
}

/** Raised when the hand-made layers or the layout change. */
const layoutVersion = 1

/** Removed from the Debian image by its uppermost layer. */
const removedFromDebian = ['etc/issue', 'usr/share/perl5', 'usr/lib/git-core/git-http-push']

const config = { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['/bin/sh'], WorkingDir: '/' }

const debianTags = ['packages', 'gzip', 'mixed'] as const
const oddTags = ['lower', 'odd'] as const

/**
 * A system as hosts run them: `packages` has Debian's essential packages and an application, a layer each with gzip. `gzip` has
 * two layers of {@link oddLowerLayer} on top. `mixed` has the same layers, one of them with zstd and one a plain tar. Takes a
 * minute when it is built for the first time, with network; comes from the cache after that.
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
      const others = [
        await layout.addLayer(application, 'zstd', options),
        await layout.addLayer(odd.lower, 'none', options),
      ]
      await layout.addImage('packages', [baseLayer, gzip[0]!], config)
      await layout.addImage('gzip', [baseLayer, ...gzip, oddUpper], config)
      await layout.addImage('mixed', [baseLayer, ...others, oddUpper], config)
    },
  )
  return {
    packages: { layoutDirectory, tag: 'packages' },
    gzip: { layoutDirectory, tag: 'gzip' },
    mixed: { layoutDirectory, tag: 'mixed' },
  }
}

/** Two hand-made layers of a few megabytes; needs neither network nor root, and a second. */
export async function oddImage(options: ImageCacheOptions = {}): Promise<LabImage> {
  return (await oddImages(options)).both
}

/** As {@link oddImage}, and its lower layer alone. */
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

/**
 * Unpacks an image with umoci: the tree that everybody else's must equal. As root.
 *
 * @returns the root directory of the tree, which is `rootfs` in `bundleDirectory`
 */
export async function unpackWithUmoci(
  { layoutDirectory, tag }: LabImage,
  bundleDirectory: string,
  { signal }: { signal?: AbortSignal } = {},
): Promise<string> {
  await run('umoci', ['unpack', '--image', `${layoutDirectory}:${tag}`, bundleDirectory], { ...(signal && { signal }) })
  return join(bundleDirectory, 'rootfs')
}

/**
 * Builds what the cache has not, in a directory of its own that gets its name when it is complete.
 *
 * @param recipe all that the result depends on; another one is another result
 * @param build makes `directory`; `work` is there for what it needs on the way
 * @returns the directory
 */
export async function cached(
  name: string,
  recipe: unknown,
  { cacheDirectory = defaultCacheDirectory(), signal }: ImageCacheOptions,
  build: (directory: string, work: string) => Promise<void>,
): Promise<string> {
  const key = createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 16)
  const directory = join(cacheDirectory, `${name}-${key}`)
  if (await exists(directory)) return directory
  signal?.throwIfAborted()
  await mkdir(cacheDirectory, { recursive: true })
  const temporary = await mkdtemp(join(cacheDirectory, `${name}-building-`))
  try {
    const result = join(temporary, 'result')
    const work = join(temporary, 'work')
    await mkdir(work)
    await build(result, work)
    await rename(result, directory).catch(async (error: unknown) => {
      // Somebody else was faster: theirs is as good.
      if (!(await exists(directory))) throw error
    })
    return directory
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

function defaultCacheDirectory(): string {
  return process.env['P2PFS_LAB_CACHE'] ?? join(homedir(), '.cache', 'p2pfs-lab')
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

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}
