import { createHash } from 'node:crypto'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Descriptor } from './image-manifest.ts'

/**
 * Passes a blob through, and checks its size at the end, and with `verify` its SHA-256.
 * @throws invalid
 */
export async function* verifiedBlob(
  source: AsyncIterable<Uint8Array>,
  { digest, sizeBytes }: Descriptor,
  verify: boolean,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256')
  let length = 0
  for await (const piece of source) {
    length += piece.length
    if (length > sizeBytes)
      throw new P2pfsError('invalid', `blob ${digest} is longer than its ${sizeBytes} bytes`, { digest })
    if (verify) hash.update(piece)
    yield piece
  }
  if (length !== sizeBytes)
    throw new P2pfsError('invalid', `blob ${digest} has ${length} bytes, not ${sizeBytes}`, { digest })
  if (verify && `sha256:${hash.digest('hex')}` !== digest)
    throw new P2pfsError('invalid', `blob ${digest} does not match its digest`, { digest })
}
