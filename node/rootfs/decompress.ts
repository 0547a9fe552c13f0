import { Readable, type Transform } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import type { Compression } from '../../protocol/blob-map.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { zstdFrames } from './zstd-frames.ts'

/** Size of the pieces of output, bytes. Large pieces cost fewer turns of the event loop. */
export const outputBytes = 256 * 1024

/** Follows a decompression, to resume it later somewhere in its middle. */
export interface DecompressObserver {
  start: (compression: Compression) => void
  /** The next bytes of the blob; their output comes later. */
  compressed: (bytes: Buffer) => void
  /** A zstd frame begins at this byte of the blob; all output before it has come. */
  frame: (byteOffset: number) => void
}

/**
 * The tar in a layer's bytes: gzip of any number of members, zstd of any number of frames, or plain. The first bytes
 * decide, because media types may be wrong.
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

/** Decompresses frame by frame, because zlib's stream ends with its first frame. */
async function* decompressZstd(
  input: AsyncIterable<Buffer>,
  observer: DecompressObserver | undefined,
): AsyncGenerator<Buffer> {
  const pieces = zstdFrames(input)
  for (let first = await pieces.next(); first.done !== true; first = await pieces.next()) {
    const { value } = first
    if (value.frameOffset !== undefined) observer?.frame(value.frameOffset)
    const frame = async function* (): AsyncGenerator<Buffer> {
      // Each piece costs a turn of zlib's thread, so those that lie side by side go as one.
      let { bytes } = value
      // No for-await: leaving it would end the generator, which has the next frame.
      for (let last = value.last; !last;) {
        const next = await pieces.next()
        if (next.done === true) break
        const both = joined(bytes, next.value.bytes)
        if (both === undefined) yield bytes
        bytes = both ?? next.value.bytes
        last = next.value.last
      }
      yield bytes
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

/** Both as one, where the second lies behind the first in memory, or one of them is empty. */
function joined(first: Buffer, second: Buffer): Buffer | undefined {
  if (first.length === 0) return second
  if (second.length === 0) return first
  if (first.buffer !== second.buffer || first.byteOffset + first.length !== second.byteOffset) return undefined
  return Buffer.from(first.buffer, first.byteOffset, first.length + second.length)
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
/** The magic number of RFC 1952. */
const isGzip = (head: Buffer): boolean => head[0] === 0x1f && head[1] === 0x8b
/** The magic number of a frame or of a skippable frame: RFC 8878. */
const isZstd = (head: Buffer): boolean =>
  head.length >= 4 && (head.readUInt32LE(0) === 0xfd2fb528 || (head.readUInt32LE(0) & 0xfffffff0) >>> 0 === 0x184d2a50)
