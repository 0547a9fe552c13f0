import { digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'

/** From this size on it is worth handing a hash to libuv's thread pool, bytes. */
const pooledBytes = 64 * 1024

/** The SHA-256 of the bytes. Large ones are hashed in the thread pool; they must not change meanwhile. */
export async function hashBytes(bytes: Uint8Array): Promise<Digest> {
  if (bytes.length < pooledBytes) return digestOf(bytes)
  const raw = await crypto.subtle.digest('SHA-256', bytes)
  return parseDigest(`sha256:${Buffer.from(raw).toString('hex')}`)
}
