import type { Stream } from '@libp2p/interface'
import { Uint8ArrayList } from 'uint8arraylist'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'

type Sendable = Parameters<Stream['send']>[0]

/** Up to this size the first part of a message is copied behind its length, rather than sent by itself (bytes). */
const smallBytes = 4096

/** A length takes no more bytes: seven bits each, of messages of less than 4 GiB. */
const maxLengthBytes = 5

/**
 * The messages of a stream, each behind its length (unsigned varint). While the caller is busy with messages, the stream
 * is paused: what the peer sends meanwhile is at most a window of the stream.
 * @param options `onBytes`: called for each piece of a message that has come, with its size (bytes)
 * @throws invalid for one longer than `maxBytes`; unavailable where the stream breaks
 */
export async function* readFrames(
  stream: Stream,
  maxBytes: number,
  { onBytes }: { onBytes?: (bytes: number) => void } = {},
): AsyncGenerator<Uint8Array> {
  const buffer = new FrameBuffer(maxBytes)
  /** Bytes that were still to be read when the peer closed the stream. */
  const rest: Bytes[] = []
  const onRest = ({ data }: { data: Bytes }): void => void rest.push(data)
  try {
    for await (const data of stream) {
      onBytes?.(data.byteLength)
      buffer.append(data)
      let message = buffer.next()
      if (message === undefined) continue
      if (stream.readStatus === 'readable') stream.pause()
      try {
        for (; message !== undefined; message = buffer.next()) yield message
      } finally {
        if (stream.readStatus === 'paused') {
          // The iterator of a stream ends when the peer closes it, even if the stream is paused.
          const hasClosed = stream.remoteWriteStatus === 'closed'
          if (hasClosed) stream.addEventListener('message', onRest)
          stream.resume()
          if (hasClosed) stream.removeEventListener('message', onRest)
        }
      }
    }
    for (const data of rest) buffer.append(data)
    for (let message = buffer.next(); message !== undefined; message = buffer.next()) yield message
    if (!buffer.isEmpty) throw new P2pfsError('unavailable', 'stream ended within a message')
  } catch (cause) {
    if (isP2pfsError(cause)) throw cause
    throw new P2pfsError('unavailable', `stream broke: ${(cause as Error).message}`, { cause })
  }
}

/** Bytes as a stream delivers them: in one piece, or in several. */
type Bytes = Uint8Array | Iterable<Uint8Array>

/** Bytes of a stream that are not a whole message yet. */
class FrameBuffer {
  readonly #maxBytes: number
  #pieces: Uint8Array[] = []
  #sizeBytes = 0
  /** Length of the message that comes next, when it is known (bytes). */
  #length: number | undefined

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get isEmpty(): boolean {
    return this.#sizeBytes === 0 && this.#length === undefined
  }

  append(bytes: Bytes): void {
    for (const piece of bytes instanceof Uint8Array ? [bytes] : bytes) {
      this.#pieces.push(piece)
      this.#sizeBytes += piece.length
    }
  }

  /** The next message; undefined where it is not whole yet. @throws invalid for one that is too long */
  next(): Uint8Array | undefined {
    this.#length ??= this.#takeLength()
    if (this.#length === undefined || this.#sizeBytes < this.#length) return undefined
    const message = this.#take(this.#length)
    this.#length = undefined
    return message
  }

  #takeLength(): number | undefined {
    const head = this.#pieces.length > 0 && this.#pieces[0]!.length >= maxLengthBytes ? this.#pieces[0]! : this.#head()
    let length = 0
    for (let i = 0; i < maxLengthBytes; i++) {
      const byte = head[i]
      if (byte === undefined) return undefined
      length += (byte & 0x7f) * 2 ** (7 * i)
      if (byte < 0x80) {
        if (length > this.#maxBytes) break
        this.#take(i + 1)
        return length
      }
    }
    throw new P2pfsError('invalid', 'message is longer than the protocol allows')
  }

  /** The first bytes: as many as a length can have. */
  #head(): Uint8Array {
    const some: Uint8Array[] = []
    let sizeBytes = 0
    for (const piece of this.#pieces) {
      if (sizeBytes >= maxLengthBytes) break
      some.push(piece.subarray(0, maxLengthBytes))
      sizeBytes += piece.length
    }
    return Buffer.concat(some)
  }

  /** Takes the first bytes out. They are a view where they are in one piece. */
  #take(lengthBytes: number): Uint8Array {
    const taken: Uint8Array[] = []
    let missing = lengthBytes
    let used = 0
    while (missing > 0) {
      const piece = this.#pieces[used]!
      if (piece.length > missing) {
        taken.push(piece.subarray(0, missing))
        this.#pieces[used] = piece.subarray(missing)
        missing = 0
      } else {
        taken.push(piece)
        missing -= piece.length
        used++
      }
    }
    this.#pieces.splice(0, used)
    this.#sizeBytes -= lengthBytes
    return taken.length === 1 ? taken[0]! : Buffer.concat(taken, lengthBytes)
  }
}

/**
 * Sends one message, made of the given parts; resolves when the stream has taken all of it and takes more.
 * @throws unavailable
 */
export async function writeFrame(
  stream: Stream,
  parts: readonly Uint8Array[],
  { signal }: { signal?: AbortSignal } = {},
): Promise<void> {
  try {
    const [first = new Uint8Array(), ...rest] = parts
    const prefix = encodeLength(parts.reduce((sum, part) => sum + part.length, 0))
    const head = first.length <= smallBytes ? [Buffer.concat([prefix, first])] : [prefix, first]
    const pieces = [...head, ...rest]
    // Each send is a frame that is encrypted by itself. libp2p has a list of bytes of another version, which takes this
    // one.
    const message = pieces.length === 1 ? pieces[0]! : (new Uint8ArrayList(...pieces) as unknown as Sendable)
    const canTakeMore = stream.send(message)
    await drained(stream, canTakeMore, signal)
  } catch (cause) {
    if (signal?.aborted === true) throw signal.reason as Error
    throw new P2pfsError('unavailable', `cannot send: ${(cause as Error).message}`, { cause })
  }
}

/**
 * Resolves when nothing waits to be sent. libp2p's `onDrain` waits once for each stream only, and ends when the connection
 * takes more, though the stream may not.
 */
async function drained(stream: Stream, canTakeMore: boolean, signal: AbortSignal | undefined): Promise<void> {
  for (let mustWait = !canTakeMore; mustWait || stream.writeBufferLength > 0; mustWait = false) {
    signal?.throwIfAborted()
    const drain = Promise.withResolvers<undefined>()
    const onDrain = (): void => drain.resolve(undefined)
    const onClose = (): void => drain.reject(new P2pfsError('unavailable', 'stream was closed'))
    const onAbort = (): void => drain.reject(signal?.reason as Error)
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
    signal?.addEventListener('abort', onAbort)
    try {
      if (stream.status !== 'open') onClose()
      await drain.promise
    } finally {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
      signal?.removeEventListener('abort', onAbort)
    }
  }
}

/** The length as an unsigned LEB128 number. */
function encodeLength(length: number): Uint8Array {
  const bytes: number[] = []
  let rest = length
  do {
    bytes.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>>= 7
  } while (rest > 0)
  return Uint8Array.from(bytes)
}
