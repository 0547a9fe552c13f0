import { mkdir, open } from 'node:fs/promises'
import type { Digest } from '../../../../protocol/digest.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import type { LayerIndex } from '../../../../protocol/layer-index.ts'
import type { FilesystemFormat } from '../../../../protocol/rootfs-manifest.ts'
import { run } from '../../../../netlab/hosts/process.ts'
import { decompress } from '../../../../node/rootfs/decompress.ts'
import { importLayer } from '../../../../node/rootfs/layer-import.ts'
import { LayerIndexer } from '../../../../node/rootfs/layer-indexer.ts'
import { buildRootfs } from '../../../../node/rootfs/rootfs-build.ts'

/** A layer as a registry has it, and the tar in it. */
export interface TestLayer {
  blob: Buffer
  tar: Buffer
}

type Chunks = Map<Digest, Uint8Array>

/** The checker and the mount options of each format. */
const tools: Record<FilesystemFormat, { fsck: (file: string) => [string, string[]]; mountOptions: string[] }> = {
  ext4: { fsck: (file) => ['e2fsck', ['-fn', file]], mountOptions: ['-t', 'ext4', '-o', 'ro,loop'] },
  erofs: { fsck: (file) => ['fsck.erofs', [file]], mountOptions: ['-t', 'erofs', '-o', 'ro'] },
}

const { signal } = new AbortController()

/** Indexes a layer and puts its chunks into `chunks`, with a worker thread as in the daemon, or faster without. */
export async function indexLayer(
  { blob, tar }: TestLayer,
  chunks: Chunks,
  { worker }: { worker: boolean },
): Promise<LayerIndex> {
  const put = async (digest: Digest, bytes: Uint8Array): Promise<void> => void chunks.set(digest, bytes)
  const source = pieces(blob)
  if (worker)
    return (await importLayer(source, { digest: digestOf(blob), diffId: digestOf(tar) }, { put }, { signal })).index
  const indexer = new LayerIndexer({ put })
  for await (const bytes of decompress(source)) await indexer.push(bytes)
  return await indexer.finish()
}

/** Copies of pieces, which the receiver may keep. */
async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1 << 18) yield Uint8Array.from(bytes.subarray(at, at + (1 << 18)))
}

/** Writes the rootfs of an image as the daemon serves it: the metadata segment, then the layers' data segments. */
export async function writeRootfsFile(
  path: string,
  layers: readonly LayerIndex[],
  chunks: Chunks,
  format: FilesystemFormat,
): Promise<void> {
  const metadata: Chunks = new Map()
  const put = async (digest: Digest, bytes: Uint8Array): Promise<void> => void metadata.set(digest, bytes)
  const manifest = await buildRootfs(layers, { config: '{}', format }, { put })
  await using file = await open(path, 'w')
  let offset = 0
  for (const table of [manifest.metadata, ...manifest.layers.map((layer) => layer.chunks)]) {
    for (let i = 0; i < table.count; i++) {
      const bytes = metadata.get(table.digestAt(i)) ?? chunks.get(table.digestAt(i))
      if (bytes === undefined) throw new Error(`${path}: chunk ${i} of a segment was not put`)
      if (bytes.some((byte) => byte !== 0)) await file.write(bytes, 0, bytes.length, offset + table.offsets[i]!)
    }
    offset += table.sizeBytes
  }
  await file.truncate(offset)
}

/** Runs the filesystem's own checker. @throws its complaints */
export async function checkRootfsFile(path: string, format: FilesystemFormat): Promise<void> {
  const [command, args] = tools[format].fsck(path)
  const { stdout } = await run(command, args)
  if (format === 'ext4' && /\?|WARNING/.test(stdout.toString()))
    throw new Error(`e2fsck of ${path}: ${stdout.toString()}`)
}

/** Mounts it read-only. Disposal unmounts it and detaches its loop device. */
export async function mountRootfsFile(
  path: string,
  mountPoint: string,
  format: FilesystemFormat,
): Promise<AsyncDisposable> {
  await mkdir(mountPoint, { recursive: true })
  await run('mount', [...tools[format].mountOptions, path, mountPoint])
  return { [Symbol.asyncDispose]: async () => void (await run('umount', [mountPoint])) }
}
