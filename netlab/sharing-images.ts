import { appendFile, mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { P2pfsError } from '../protocol/errors.ts'
import { debianRecipe } from './debian-layers.ts'
import { cached, type ImageCacheOptions, type LabImage } from './images.ts'
import { OciLayout, type StoredLayer } from './oci-layout.ts'
import { run } from './process.ts'
import { readTree, type Tree } from './tree-compare.ts'

/** A version of an image. */
export interface SharingImage extends LabImage {
  /** How it came to be, for people. */
  what: string
  /** Tag of what a host has that gets this one next; nothing for the first. */
  from?: string
}

const release = { suite: debianRecipe.suite, component: '/debian' } as const
const upgrades = [
  { suite: `${debianRecipe.suite}-updates`, component: '/debian' },
  { suite: `${debianRecipe.suite}-security`, component: '/debian-security' },
] as const
type Source = typeof release | (typeof upgrades)[number]

/** Used if apt of this machine names no mirror for a suite. */
const defaultMirror = 'http://deb.debian.org'
/** Made anew by every build, or mounted over by whoever runs the image: empty in it. */
const emptied = ['dev', 'proc', 'run', 'sys', 'tmp', 'var/cache', 'var/lib/apt/lists', 'var/log'] as const
/** The file that changes has a size between these, bytes. */
const changedFileBytes = { min: 2048, max: 8192 } as const
/** A file in which none of these differs is no part of an upper layer. Times are not among them: all packages are unpacked twice. */
const comparedAspects = ['type', 'mode', 'uid', 'gid', 'sizeBytes', 'content', 'linkTarget', 'device', 'xattrs'] as const

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

/** All that the images depend on but for what the suites hold; a change makes new ones. */
const recipe = { ...debianRecipe, version: 1, release, upgrades, emptied, changedFileBytes, comparedAspects, versions } as const

/**
 * Versions of a system of real Debian packages. Takes minutes when they are built for the first time, with network; they
 * come from the cache after that. As root.
 *
 * @throws unsupported without mmdebstrap; unavailable if a mirror does not answer
 */
export async function sharingImages(options: ImageCacheOptions = {}): Promise<SharingImage[]> {
  const layoutDirectory = await cached('sharing', recipe, options, async (directory, work) => {
    const layout = await OciLayout.create(directory)
    const layers = new Map<string, StoredLayer>()
    for (const [name, tar] of await buildLayers(work, options)) layers.set(name, await layout.addLayer(tar, 'gzip', options))
    for (const [tag, version] of Object.entries(versions)) {
      await layout.addImage(tag, version.layers.map((name) => layers.get(name)!), config)
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
    await packTree(tree, join(work, `${name}.tar`), options)
  }
  await pack('base', old.base)
  await pack('upgraded-base', upgraded.base)
  const upper = { app: [old.base, old.whole], 'upgraded-app': [upgraded.base, upgraded.whole], upgrade: [old.whole, upgraded.whole] } as const
  for (const [name, [below, above]] of Object.entries(upper)) {
    await writeDifference(join(work, name), below, above, options)
    await pack(name, join(work, name))
  }
  await changeOneFile(join(work, 'app'), options)
  await pack('app-one-file', join(work, 'app'))
  return tars
}

/** Trees of the essential packages, and of these with the application, installed as a build of an image does it. */
async function bootstrap(directory: string, sources: readonly Source[], options: ImageCacheOptions): Promise<{ base: string; whole: string }> {
  const [base, whole] = [join(directory, 'base'), join(directory, 'whole')]
  await mkdir(directory)
  const mirrors = await mirrorsOfMachine(options)
  const lines = sources.map(({ suite, component }) => `deb ${mirrors.get(suite) ?? `${defaultMirror}${component}`} ${suite} main`)
  const excludes = debianRecipe.excludes.map((path) => `--dpkgopt=path-exclude=${path}`)
  const flags = ['--quiet', '--mode=root', '--format=directory', '--variant=essential', `--include=${debianRecipe.application.join(',')}`, ...excludes]
  // When the essential packages are there, before the others.
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

/** By suite. */
async function mirrorsOfMachine(options: ImageCacheOptions): Promise<Map<string, string>> {
  const { stdout } = await run('apt-get', ['indextargets', '--format', '$(CREATED_BY) $(CODENAME) $(REPO_URI)'], options)
  const targets = stdout.toString().split('\n').map((line) => line.split(' '))
  return new Map(targets.filter(([kind]) => kind === 'Packages').map(([, suite = '', mirror = '']) => [suite, mirror]))
}

/** Makes the tree of the layer that turns `below` into `above`: what differs, the directories it is in, and whiteouts. */
async function writeDifference(tree: string, below: string, above: string, options: ImageCacheOptions): Promise<void> {
  const [lower, upper] = [await readTree(below, options), await readTree(above, options)]
  const changed = new Set<string>()
  for (const [path, entry] of upper) {
    const old = lower.get(path)
    if (old !== undefined && comparedAspects.every((aspect) => old[aspect] === entry[aspect])) continue
    for (let at = path; at !== '.'; at = dirname(at)) changed.add(at)
  }
  await mkdir(tree)
  const names = [...changed].filter(Boolean).sort()
  const list = Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1')
  const copied = `${tree}.copied.tar`
  const fromList = ['--null', '--verbatim-files-from', '--no-recursion', '--files-from=-']
  await run('tar', ['--create', `--file=${copied}`, `--directory=${above}`, '--xattrs', ...fromList], { ...options, input: list })
  await run('tar', ['--extract', `--file=${copied}`, `--directory=${tree}`, '--xattrs', '--xattrs-include=*'], options)
  await rm(copied)
  for (const path of removedFrom(lower, upper)) {
    await mkdir(join(tree, dirname(path)), { recursive: true })
    await writeFile(join(tree, dirname(path), `.wh.${path.slice(path.lastIndexOf('/') + 1)}`), '')
  }
}

/** What `upper` has no more; of directories the uppermost. */
function removedFrom(lower: Tree, upper: Tree): string[] {
  return [...lower.keys()].filter((path) => !upper.has(path) && upper.get(path.includes('/') ? dirname(path) : '')?.type === 'directory')
}

/** The file in the middle of those that have the size. */
async function changeOneFile(tree: string, options: ImageCacheOptions): Promise<void> {
  const files = [...(await readTree(tree, options))].filter(
    ([, { type, sizeBytes }]) => type === 'file' && Number(sizeBytes) >= changedFileBytes.min && Number(sizeBytes) <= changedFileBytes.max,
  )
  const [path] = files[files.length >> 1] ?? []
  if (path === undefined) throw new P2pfsError('missing', 'the layer has no file of the size that is to change', { ...changedFileBytes })
  await appendFile(join(tree, path), '# changed\n')
}

async function packTree(tree: string, tar: string, options: ImageCacheOptions): Promise<void> {
  const clamp = [`--mtime=@${debianRecipe.epochSeconds}`, '--clamp-mtime', '--sort=name', '--numeric-owner']
  const pax = ['--format=pax', '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime', '--xattrs']
  await run('tar', ['--create', `--file=${tar}`, `--directory=${tree}`, ...clamp, ...pax, '.'], options)
}
