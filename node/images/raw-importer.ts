import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { ChunkTable } from '../../protocol/chunk-table.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { maxRawBytes, rawLayers, rawLayerType } from '../../protocol/raw-image.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { formatByteSize } from '../base/byte-size.ts'
import { systemError } from '../base/system-error.ts'
import type { FindOptions, UnsignedRecord, Variant } from '../model/image.ts'
import { progressFrom } from '../model/progress.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
import { readRawImage } from '../rootfs/raw/read-raw-image.ts'
import type { ImportTransactions } from '../store/import-transaction.ts'
import type { Inventory } from '../store/inventory.ts'
import { localImage } from './local-source.ts'

export interface RawImporterParts {
  transactions: Pick<ImportTransactions, 'begin'>
  inventory: Pick<Inventory, 'writing'>
}

/** Makes images of finished disk images, which stay as they are. */
export class RawImporter {
  readonly #parts: RawImporterParts

  constructor(parts: RawImporterParts) {
    this.#parts = parts
  }

  /**
   * Imports a file, or the bytes of a pipe. If it fails, the chunks that it has written are removed. The image is a
   * function of the bytes and the platform.
   * @throws missing, denied, unsupported for what cannot be read; invalid for an empty or too large one; conflict for
   *   one that is being written to; unavailable where the disk refuses; the signal's reason
   */
  async import(
    source: string,
    reference: Reference,
    { platform }: Pick<Variant, 'platform'>,
    options: FindOptions,
  ): Promise<{ record: UnsignedRecord; manifest: RootfsManifest; isUnverified: false }> {
    await using file = await openSource(source)
    const transaction = this.#parts.transactions.begin()
    let manifest: RootfsManifest
    let image: ReturnType<typeof localImage>
    try {
      const read = await this.#read(file, source, transaction, options)
      const layers = rawLayers(read.digests, read.sizeBytes)
      image = localImage(
        formatReference(reference),
        platform,
        layers.map(({ diffId, chunks }) => ({ diffId, sizeBytes: chunks.sizeBytes, mediaType: rawLayerType })),
      )
      const metadata = new ChunkTable([], new Uint8Array(0))
      manifest = { format: 'raw', metadata, layers, config: image.config, sizeBytes: read.sizeBytes }
    } catch (error) {
      await transaction.rollback()
      throw error
    }
    transaction.commit()
    const { manifestDigest, manifest: json } = image
    return {
      record: {
        reference: image.reference,
        platform,
        format: 'raw',
        manifestDigest,
        manifest: json,
        rootfsDigest: rootfsDigest(manifest),
      },
      manifest,
      isUnverified: false,
    }
  }

  async #read(
    file: FileHandle,
    name: string,
    transaction: ReturnType<ImportTransactions['begin']>,
    { signal, onProgress }: FindOptions,
  ): Promise<{ digests: Uint8Array; sizeBytes: number }> {
    const before = await file.stat({ bigint: true })
    const isPipe = before.isFIFO()
    const size = isPipe ? undefined : Number(before.size)
    if (size === 0) throw new P2pfsError('invalid', `cannot import ${name}: it is empty`)
    checkSize(size ?? 0, name)
    const checkUnchanged = async (): Promise<void> => {
      const after = await file.stat({ bigint: true })
      if (isPipe || (after.size === before.size && after.mtimeNs === before.mtimeNs)) return
      throw new P2pfsError(
        'conflict',
        `${name} was written to while it was read, so what was read is no image of one moment; import a snapshot or a ` +
          'copy, or stop what writes to it',
      )
    }
    await using files = transaction.openFiles()
    const read = await readRawImage({ fd: file.fd, name, sizeBytes: size }, files, {
      signal,
      onBytes: (doneBytes) => {
        checkSize(doneBytes, name)
        onProgress?.(progressFrom('local', { doneBytes, totalBytes: Math.max(size ?? 0, doneBytes) }))
      },
    }).catch(async (error: unknown) => {
      if (!signal.aborted) await checkUnchanged()
      throw error
    })
    if (read.sizeBytes === 0) throw new P2pfsError('invalid', `cannot import ${name}: nothing came out of the pipe`)
    await checkUnchanged()
    return read
  }
}

/** @throws missing, denied, unsupported */
async function openSource(source: string): Promise<FileHandle> {
  const fail = (cause: unknown): never => {
    const { code, message } = cause as NodeJS.ErrnoException
    const what = `cannot import ${source}: ${message}`
    if (code === 'ENOENT') throw new P2pfsError('missing', `there is no ${source}`, { cause })
    if (code === 'EACCES' || code === 'EPERM') throw new P2pfsError('denied', what, { cause })
    throw systemError(`cannot import ${source}`, cause)
  }
  // A pipe is opened without waiting for somebody who writes.
  const file = await open(source, constants.O_RDONLY | constants.O_NONBLOCK).catch(fail)
  const found = await file.stat()
  if (found.isFile() || found.isFIFO()) return file
  await file.close()
  if (found.isDirectory())
    throw new P2pfsError('unsupported', `${source} is a directory; --raw takes a disk image, which is one file`)
  throw new P2pfsError(
    'unsupported',
    `${source} is neither a file nor a pipe; a device is read with: dd if=${source} bs=1M | p2pfs import --raw - NAME`,
  )
}

/** @throws invalid */
function checkSize(sizeBytes: number, name: string): void {
  if (sizeBytes > maxRawBytes)
    throw new P2pfsError(
      'invalid',
      `cannot import ${name}: it is larger than ${formatByteSize(maxRawBytes)}, the most that a raw image may have`,
    )
}
