import { Readable, type Transform } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import type { Compression } from '../../protocol/blob-map.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { zstdFrames } from './zstd-frames.ts'

/** Pieces of output: large, for each costs a turn of the loop, bytes. */
const outputBytes = 256 * 1024

/** What a decompression passes: for whoever wants to resume it later. */
export interface DecompressObserver {
  start: (compression: Compression) => void
  /** Bytes of the blob, before what they make comes. */
  compressed: (bytes: Buffer) => void
  /** A zstd frame begins at this byte of the blob; all that is before it has come. */
  frame: (byteOffset: number) => void
}

/**
 * The tar in a layer's bytes: gzip (of several members too), zstd (of several frames too) or plain, told by its first
 * bytes, for media types lie.
 * @throws invalid where the stream is damaged or cut short
 */
export async function* decompress(
  input: AsyncIterable<Uint8Array>,
  observer?: DecompressObserver,
): AsyncGenerator<Buffer> {
  const iterator = input[Symbol.asyncIterator]()
  let head = Buffer.alloc(0)
  while (head.length < 4) {
    const { done, value } = await iterator.next()
    if (done === true) break
    head = Buffer.concat([head, value])
  }
  const whole = async function* (): AsyncGenerator<Buffer> {
    if (head.length > 0) {
      observer?.compressed(head)
      yield head
    }
    for (;;) {
      const { done, value } = await iterator.next()
      if (done === true) return
      const bytes = asBuffer(value)
      observer?.compressed(bytes)
      yield bytes
    }
  }
  const compression = isGzip(head) ? 'gzip' : isZstd(head) ? 'zstd' : 'none'
  observer?.start(compression)
  if (compression === 'gzip') yield* through(whole(), createGunzip({ chunkSize: outputBytes }))
  else if (compression === 'zstd') yield* decompressZstd(whole(), observer)
  else yield* whole()
}

/** Frame by frame: zlib's stream ends with the first. */
async function* decompressZstd(
  input: AsyncIterable<Buffer>,
  observer: DecompressObserver | undefined,
): AsyncGenerator<Buffer> {
  const pieces = zstdFrames(input)
  for (let first = await pieces.next(); first.done !== true; first = await pieces.next()) {
    const { value } = first
    if (value.frameOffset !== undefined) observer?.frame(value.frameOffset)
    const frame = async function* (): AsyncGenerator<Buffer> {
      yield value.bytes
      // By hand: leaving a for-await would end the generator, and the next frame is to come from it.
      for (let last = value.last; !last;) {
        const next = await pieces.next()
        if (next.done === true) return
        if (next.value.bytes.length > 0) yield next.value.bytes
        last = next.value.last
      }
    }
    yield* through(frame(), createZstdDecompress({ chunkSize: outputBytes }))
  }
}

async function* through(input: AsyncIterable<Buffer>, transform: Transform): AsyncGenerator<Buffer> {
  const source = Readable.from(input, { objectMode: false })
  source.on('error', (error) => transform.destroy(error))
  try {
    for await (const bytes of source.pipe(transform)) yield bytes as Buffer
  } catch (cause) {
    if (typeof (cause as { errno?: unknown }).errno !== 'number') throw cause
    throw new P2pfsError('invalid', `layer is damaged or cut short: ${(cause as Error).message}`, { cause })
  } finally {
    source.destroy()
    transform.destroy()
  }
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
/** RFC 1952. */
const isGzip = (head: Buffer): boolean => head[0] === 0x1f && head[1] === 0x8b
/** RFC 8878: a frame, or a skippable frame before it. */
const isZstd = (head: Buffer): boolean =>
  head.length >= 4 && (head.readUInt32LE(0) === 0xfd2fb528 || (head.readUInt32LE(0) & 0xfffffff0) >>> 0 === 0x184d2a50)
