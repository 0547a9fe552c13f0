import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Digest } from '../../../../protocol/digest.ts'
import type { LayerIndex } from '../../../../protocol/layer-index.ts'
import type { FilesystemFormat } from '../../../../protocol/rootfs-manifest.ts'
import { unpackWithUmoci } from '../../../../netlab/images/lab-image.ts'
import { OciLayout, type StoredLayer } from '../../../support/oci-layout.ts'
import { readTree, type Tree } from '../../../../netlab/images/directory-tree.ts'
import { differences, type Difference } from '../../../../netlab/images/tree-compare.ts'
import { checkRootfsFile, indexLayer, mountRootfsFile, writeRootfsFile, type TestLayer } from './rootfs-file.ts'

export const formats: readonly FilesystemFormat[] = ['ext4', 'erofs']

export interface TestImage {
  /** A plain file name. */
  name: string
  layers: readonly TestLayer[]
  /** Tars that umoci gets instead: the same files in an encoding that it reads. */
  forUmoci?: readonly Buffer[]
}

export interface CompareOptions {
  /** Whether each layer has a worker thread, as in the daemon. */
  worker?: boolean
}

/**
 * Unpacks images with umoci as root, mounts their rootfs in each format, and compares the trees. All images are
 * compared at once, because each reading of trees costs a process.
 * @returns the differences of each image that has any, by its name
 */
export async function compareImages(
  images: readonly TestImage[],
  { worker = false }: CompareOptions = {},
): Promise<Map<string, string>> {
  const work = await mkdtemp(join(tmpdir(), 'p2pfs-exact-'))
  const failures = new Map<string, string>()
  const fail = (name: string, message: string): void =>
    void failures.set(name, [...(failures.has(name) ? [failures.get(name)!] : []), message].join('\n'))
  try {
    const startNs = BigInt(Date.now()) * 1_000_000n
    const [expected, indexed] = await Promise.all([unpackAll(images, work, fail), indexAll(images, fail, worker)])
    const endNs = BigInt(Date.now() + 1) * 1_000_000n
    /** Times that no layer gives, but the kernel. */
    const madeNow = ({ aspect, left }: Difference): boolean =>
      aspect === 'mtime' && BigInt(left!) >= startNs && BigInt(left!) <= endNs
    for (const format of formats) {
      await using mounts = new AsyncDisposableStack()
      const directory = join(work, format)
      await mkdir(directory)
      await eachOf([...indexed], async ([name, { layers, chunks }]) => {
        try {
          const file = join(work, `${name}.${format}`)
          await writeRootfsFile(file, layers, chunks, format)
          await checkRootfsFile(file, format)
          mounts.use(await mountRootfsFile(file, join(directory, name), format))
        } catch (error) {
          fail(name, `${format}: ${(error as Error).message}`)
        }
      })
      for (const [name, found] of byImage(expected, await readTree(directory))) {
        const wrong = found.filter((difference) => !madeNow(difference))
        if (wrong.length > 0 && !failures.has(name))
          fail(
            name,
            wrong
              .map(
                ({ path, aspect, left, right }) =>
                  `${format}: ${JSON.stringify(path)} ${aspect}: umoci ${left}, we ${right}`,
              )
              .join('\n'),
          )
      }
    }
    return failures
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** The trees of all images in one directory, by their names. */
async function unpackAll(
  images: readonly TestImage[],
  work: string,
  fail: (name: string, message: string) => void,
): Promise<Tree> {
  const layout = await OciLayout.create(join(work, 'layout'))
  for (const { name, layers, forUmoci } of images) {
    const stored: StoredLayer[] = []
    for (const tar of forUmoci ?? layers.map((layer) => layer.tar)) {
      await writeFile(join(work, 'layer.tar'), tar)
      stored.push(await layout.addLayer(join(work, 'layer.tar'), 'none'))
    }
    await layout.addImage(name, stored, {})
  }
  const roots = join(work, 'umoci')
  await mkdir(roots)
  await eachOf(images, async ({ name }) => {
    try {
      const bundle = join(work, `bundle-${name}`)
      await rename(await unpackWithUmoci({ layoutDirectory: layout.directory, tag: name }, bundle), join(roots, name))
    } catch (error) {
      fail(name, `umoci: ${(error as Error).message}`)
    }
  })
  return await readTree(roots)
}

async function indexAll(
  images: readonly TestImage[],
  fail: (name: string, message: string) => void,
  worker: boolean,
): Promise<Map<string, { layers: LayerIndex[]; chunks: Map<Digest, Uint8Array> }>> {
  const all = new Map<string, { layers: LayerIndex[]; chunks: Map<Digest, Uint8Array> }>()
  for (const image of images) {
    try {
      const chunks = new Map<Digest, Uint8Array>()
      const layers: LayerIndex[] = []
      for (const layer of image.layers) layers.push(await indexLayer(layer, chunks, { worker }))
      all.set(image.name, { layers, chunks })
    } catch (error) {
      fail(image.name, `import: ${(error as Error).message}`)
    }
  }
  return all
}

/** The differences of two directories of trees, by the first component of their paths. */
function byImage(left: Tree, right: Tree): Map<string, Difference[]> {
  const found = new Map<string, Difference[]>()
  for (const difference of differences(left, right)) {
    const [name = '', ...rest] = difference.path.split('/')
    if (name === '') continue
    const ofImage = found.get(name) ?? []
    ofImage.push({ ...difference, path: rest.join('/') })
    found.set(name, ofImage)
  }
  return found
}

/** Two at a time, because they wait for processes. */
async function eachOf<T>(items: readonly T[], use: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < items.length) await use(items[next++]!)
  }
  await Promise.all([worker(), worker()])
}
