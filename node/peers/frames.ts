import type { Stream } from '@libp2p/interface'
import * as lengthPrefixed from 'it-length-prefixed'
import { pipe } from 'it-pipe'
import { P2pfsError } from '../../protocol/errors.ts'

/** Up to this size the first part of a message is copied behind its length, rather than sent by itself (bytes). */
const smallBytes = 4096

/**
 * The messages of a stream, each behind its length (unsigned varint).
 * @throws invalid for one longer than `maxBytes`; unavailable where the stream breaks
 */
export async function* readFrames(
  stream: Pick<Stream, typeof Symbol.asyncIterator>,
  maxBytes: number,
): AsyncGenerator<Uint8Array> {
  try {
    const messages = pipe(stream, (source) => lengthPrefixed.decode(source, { maxDataLength: maxBytes }))
    for await (const message of messages) yield message.subarray()
  } catch (cause) {
    const { name } = cause as Error
    if (
      name === 'InvalidDataLengthError' ||
      name === 'InvalidDataLengthLengthError' ||
      name === 'InvalidMessageLengthError'
    ) {
      throw new P2pfsError('invalid', 'message is longer than the protocol allows', { cause })
    }
    throw new P2pfsError('unavailable', `stream broke: ${(cause as Error).message}`, { cause })
  }
}

/** Sends one message, made of the given parts; resolves when the stream takes more. @throws unavailable */
export async function writeFrame(
  stream: Stream,
  parts: readonly Uint8Array[],
  { signal }: { signal?: AbortSignal } = {},
): Promise<void> {
  try {
    const [first = new Uint8Array(), ...rest] = parts
    const prefix = encodeLength(parts.reduce((sum, part) => sum + part.length, 0))
    let canTakeMore = true
    // Each send is a frame that is encrypted by itself, so small parts are sent together.
    if (first.length <= smallBytes) canTakeMore = stream.send(Buffer.concat([prefix, first]))
    else for (const part of [prefix, first]) canTakeMore = stream.send(part)
    for (const part of rest) canTakeMore = stream.send(part)
    if (!canTakeMore) await stream.onDrain(signal === undefined ? {} : { signal })
  } catch (cause) {
    if (signal?.aborted === true) throw signal.reason as Error
    throw new P2pfsError('unavailable', `cannot send: ${(cause as Error).message}`, { cause })
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
