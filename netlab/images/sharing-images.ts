import { appendFile, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { debianRecipe, mirrorsOfMachine } from './debian-layers.ts'
import { cached, type ImageCacheOptions } from './image-cache.ts'
import type { LabImage } from './lab-image.ts'
import { OciLayout, type StoredLayer } from '../../test/support/oci-layout.ts'
import { run } from '../hosts/process.ts'
import { readTree } from './directory-tree.ts'
import { comparedAspects, packTree, writeDifference } from './tree-layers.ts'

/** A version of an image. */
export interface SharingImage extends LabImage {
  /** Its making, for people. */
  what: string
  /** The tag of the version that a host has before it gets this one; absent for the first. */
  from?: string
}

const release = { suite: debianRecipe.suite, component: '/debian' } as const
const upgrades = [
  { suite: `${debianRecipe.suite}-updates`, component: '/debian' },
  { suite: `${debianRecipe.suite}-security`, component: '/debian-security' },
] as const
type Source = typeof release | (typeof upgrades)[number]

/** Used if this machine's apt names no mirror for a suite. */
const defaultMirror = 'http://deb.debian.org'
/** Directories that are empty in the images: every build makes them anew, or hosts mount something over them. */
const emptied = ['dev', 'proc', 'run', 'sys', 'tmp', 'var/cache', 'var/lib/apt/lists', 'var/log'] as const
/** The bounds on the size of the file that changes. */
const changedFileBytes = { min: 2048, max: 8192 } as const

const config = { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['/bin/sh'], WorkingDir: '/' }

/** Layers are lowest first. */
const versions = {
  base: { what: "Debian's essential packages", layers: ['base'] },
  app: { what: 'a layer with python3 and git on it', layers: ['base', 'app'], from: 'base' },
  'one-file': { what: 'that layer rebuilt, one file changed', layers: ['base', 'app-one-file'], from: 'app' },
  'upgraded-base': { what: 'base rebuilt with upgrades', layers: ['upgraded-base'], from: 'base' },
  upgraded: { what: 'both layers rebuilt with upgrades', layers: ['upgraded-base', 'upgraded-app'], from: 'app' },
  patched: { what: 'a layer of the upgrades on app', layers: ['base', 'app', 'upgrade'], from: 'app' },
} as const

/** The images depend on this, and on the contents of the suites. A change makes new images. */
const recipe = {
  ...debianRecipe,
  version: 1,
  release,
  upgrades,
  emptied,
  changedFileBytes,
  comparedAspects,
  versions,
} as const

/**
 * Versions of a system of real Debian packages. The first build takes minutes and needs the network; later calls find
 * them in the cache. As root.
 *
 * @throws unsupported without mmdebstrap; unavailable if a mirror does not answer
 */
export async function sharingImages(options: ImageCacheOptions = {}): Promise<SharingImage[]> {
  const layoutDirectory = await cached('sharing', recipe, options, async (directory, work) => {
    const layout = await OciLayout.create(directory)
    const layers = new Map<string, StoredLayer>()
    for (const [name, tar] of await buildLayers(work, options))
      layers.set(name, await layout.addLayer(tar, 'gzip', options))
    for (const [tag, version] of Object.entries(versions)) {
      await layout.addImage(
        tag,
        version.layers.map((name) => layers.get(name)!),
        config,
      )
    }
  })
  return Object.entries(versions).map(([tag, version]) => ({
    layoutDirectory,
    tag,
    what: version.what,
    ...('from' in version && { from: version.from }),
  }))
}

/** Tars of all layers, by name. */
async function buildLayers(work: string, options: ImageCacheOptions): Promise<Map<string, string>> {
  const [old, upgraded] = await Promise.all([
    bootstrap(join(work, 'old'), [release], options),
    bootstrap(join(work, 'upgraded'), [release, ...upgrades], options),
  ])
  const tars = new Map<string, string>()
  const pack = async (name: string, tree: string): Promise<void> => {
    tars.set(name, join(work, `${name}.tar`))
    await packTree(tree, join(work, `${name}.tar`), { clampSeconds: debianRecipe.epochSeconds, ...options })
  }
  await pack('base', old.base)
  await pack('upgraded-base', upgraded.base)
  const upper = {
    app: [old.base, old.whole],
    'upgraded-app': [upgraded.base, upgraded.whole],
    upgrade: [old.whole, upgraded.whole],
  } as const
  for (const [name, [below, above]] of Object.entries(upper)) {
    await writeDifference(join(work, name), below, above, options)
    await pack(name, join(work, name))
  }
  await changeOneFile(join(work, 'app'), options)
  await pack('app-one-file', join(work, 'app'))
  return tars
}

/** Makes two trees, as the build of an image does: the essential packages, and these with the application. */
async function bootstrap(
  directory: string,
  sources: readonly Source[],
  options: ImageCacheOptions,
): Promise<{ base: string; whole: string }> {
  const [base, whole] = [join(directory, 'base'), join(directory, 'whole')]
  await mkdir(directory)
  const mirrors = await mirrorsOfMachine(options)
  const lines = sources.map(
    ({ suite, component }) => `deb ${mirrors.get(suite) ?? `${defaultMirror}${component}`} ${suite} main`,
  )
  const excludes = debianRecipe.excludes.map((path) => `--dpkgopt=path-exclude=${path}`)
  const flags = [
    '--quiet',
    '--mode=root',
    '--format=directory',
    '--variant=essential',
    `--include=${debianRecipe.application.join(',')}`,
    ...excludes,
  ]
  // The hook runs when the essential packages are there and the others are not.
  const keepBase = `--essential-hook=cp --archive --one-file-system "$1" '${base}'`
  const env = { ...process.env, SOURCE_DATE_EPOCH: String(debianRecipe.epochSeconds), LC_ALL: 'C.UTF-8' }
  await run('mmdebstrap', [...flags, keepBase, debianRecipe.suite, whole, ...lines], { ...options, env })
  for (const tree of [base, whole]) {
    for (const path of emptied) {
      await rm(join(tree, path), { recursive: true, force: true })
      await mkdir(join(tree, path), { recursive: true })
    }
  }
  return { base, whole }
}

/** Changes the middle one of all files that have the right size. */
async function changeOneFile(tree: string, options: ImageCacheOptions): Promise<void> {
  const files = [...(await readTree(tree, options))].filter(
    ([, { type, sizeBytes }]) =>
      type === 'file' && Number(sizeBytes) >= changedFileBytes.min && Number(sizeBytes) <= changedFileBytes.max,
  )
  const [path] = files[files.length >> 1] ?? []
  if (path === undefined)
    throw new P2pfsError('missing', 'the layer has no file of the size that is to change', { ...changedFileBytes })
  await appendFile(join(tree, path), '# changed\n')
}
