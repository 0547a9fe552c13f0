import { chmod, copyFile, mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { debianRecipe } from './debian-layers.ts'
import { cached, type ImageCacheOptions } from './image-cache.ts'
import { debianImages } from './images.ts'
import type { LabImage } from './lab-image.ts'
import { run } from '../hosts/process.ts'

/** Scripts by their names in `/sbin`. */
const scripts = {
  'overlay-init': fileURLToPath(new URL('../../cli/overlay-init.sh', import.meta.url)),
  'guest-main': fileURLToPath(new URL('./guest-main.sh', import.meta.url)),
} as const

/** The guest has these packages on top of the Debian image. A change makes a new guest. */
const packagesRecipe = {
  version: 1,
  suite: debianRecipe.suite,
  excludes: debianRecipe.excludes,
  /** A metapackage. Its kernel has NVMe and ext4 built in, and boots without an initrd. */
  kernel: 'linux-image-cloud-amd64',
  /** A boot reads these. The python3 of the Debian image lacks libexpat1, which is not in /usr. */
  tools: ['mount', 'kmod', 'libexpat1', 'busybox-static'],
  /** A boot does not read this, as most of a real image. */
  ballast: ['g++'],
} as const

/** The init of the image: runs `/sbin/guest-main` on a writable root. */
export const guestKernelArguments = ['init=/sbin/overlay-init', 'p2pfs.init=/sbin/guest-main'] as const

export interface Guest {
  image: LabImage
  /** Path of a kernel that boots it. */
  kernel: string
}

/**
 * An image that a VM boots: the Debian image, with the tools of a machine, `cli/overlay-init.sh`, the kernel's overlay
 * module, and an init of its own, `guest-main.sh`. The rootfs has some 500 MB. The first build takes a minute and needs
 * the network; later calls find it in the cache.
 */
export async function guestImage(options: ImageCacheOptions = {}): Promise<Guest> {
  const { gzip: debian } = await debianImages(options)
  const packages = await guestPackages(options)
  const texts = await Promise.all(Object.values(scripts).map(async (path) => await readFile(path, 'utf8')))
  const layoutDirectory = await cached('guest', { packages, debian, texts }, options, async (directory, work) => {
    const image = `${directory}:guest`
    await run(
      'skopeo',
      ['--insecure-policy', 'copy', '--quiet', `oci:${debian.layoutDirectory}:${debian.tag}`, `oci:${image}`],
      options,
    )
    for (const layer of [join(packages, 'layer.tar'), await buildScripts(work, options)]) {
      await run('umoci', ['raw', 'add-layer', '--no-history', '--image', image, layer], options)
    }
  })
  return { image: { layoutDirectory, tag: 'guest' }, kernel: join(packages, 'vmlinuz') }
}

/**
 * Writes the smallest drive that {@link scripts} boots from: busybox alone, and an init that says so and powers off.
 *
 * @returns path of a kernel that boots it
 */
export async function writeBusyboxDrive(path: string, work: string, options: ImageCacheOptions = {}): Promise<string> {
  const packages = await guestPackages(options)
  const tree = join(work, 'busybox')
  for (const directory of ['proc', 'sys', 'dev', 'tmp', 'bin', 'sbin', 'lib'])
    await mkdir(join(tree, directory), { recursive: true })
  const extract = [
    '--extract',
    `--file=${join(packages, 'layer.tar')}`,
    `--directory=${tree}`,
    '--strip-components=1',
    '--wildcards',
  ]
  await run('tar', [...extract, 'usr/bin/busybox', 'usr/lib/modules/*/overlay.ko'], options)
  for (const tool of busyboxTools) await symlink('busybox', join(tree, 'bin', tool))
  await copyFile(scripts['overlay-init'], join(tree, 'sbin', 'overlay-init'))
  await writeFile(join(tree, 'sbin', 'init'), busyboxInit)
  for (const script of ['overlay-init', 'init']) await chmod(join(tree, 'sbin', script), 0o755)
  await run('mke2fs', ['-F', '-q', '-t', 'ext4', '-d', tree, path, '16M'], options)
  return join(packages, 'vmlinuz')
}

const busyboxTools = ['sh', 'mount', 'mkdir', 'chroot', 'insmod', 'sleep', 'cat', 'poweroff']

const busyboxInit = `#!/bin/sh
echo written >/file
echo "busybox guest: $$ $(cat /file) $(cat /p2pfs/scratch/upper/file)"
poweroff -f
`

async function guestPackages(options: ImageCacheOptions): Promise<string> {
  return await cached('guest-packages', packagesRecipe, options, async (directory, work) => {
    await buildPackages(directory, work, options)
  })
}

/** Makes `layer.tar` and `vmlinuz` in `directory`. */
async function buildPackages(directory: string, work: string, options: ImageCacheOptions): Promise<void> {
  const { suite, excludes, kernel, tools, ballast } = packagesRecipe
  const extracted = join(work, 'extracted.tar')
  const tree = join(work, 'tree')
  const flags = [
    '--quiet',
    '--mode=root',
    '--format=tar',
    '--variant=extract',
    ...excludes.map((path) => `--dpkgopt=path-exclude=${path}`),
  ]
  await run(
    'mmdebstrap',
    [...flags, `--include=${[kernel, ...tools, ...ballast].join(',')}`, suite, extracted],
    options,
  )
  await mkdir(tree)
  await mkdir(directory)
  const extract = ['--extract', `--file=${extracted}`, `--directory=${tree}`]
  // The Debian image has all in /usr, and links at the top: a directory in an upper layer would replace the link.
  const merged = String.raw`--transform=s,^\./\(bin\|sbin\|lib\)/,./usr/\1/,`
  await run('tar', [...extract, merged, '--exclude=./lib/modules', '--exclude=./boot'], options)
  await run('tar', [...extract, merged, '--wildcards', './lib/modules/*/overlay.ko'], options)
  await run('tar', [...extract, '--transform=s,.*/vmlinuz-.*,vmlinuz,', '--wildcards', './boot/vmlinuz-*'], options)
  await packUsr(tree, join(directory, 'layer.tar'), options)
  await rename(join(tree, 'vmlinuz'), join(directory, 'vmlinuz'))
}

async function buildScripts(work: string, options: ImageCacheOptions): Promise<string> {
  const layer = join(work, 'scripts.tar')
  const directory = join(work, 'scripts', 'usr', 'sbin')
  await mkdir(directory, { recursive: true })
  for (const [name, path] of Object.entries(scripts)) {
    await copyFile(path, join(directory, name))
    await chmod(join(directory, name), 0o755)
  }
  await packUsr(join(work, 'scripts'), layer, options)
  return layer
}

async function packUsr(tree: string, tar: string, options: ImageCacheOptions): Promise<void> {
  const owned = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner']
  await run('tar', ['--create', `--file=${tar}`, `--directory=${tree}`, '--format=pax', ...owned, 'usr'], options)
}
