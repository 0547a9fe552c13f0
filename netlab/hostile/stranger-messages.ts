import { randomBytes } from 'node:crypto'
import { encodeImportRequest } from '../../protocol/messages/import.ts'
import { encodeObjectRequest } from '../../protocol/messages/object.ts'
import { encodeRegionMessage } from '../../protocol/messages/region.ts'
import { digestOf } from '../../protocol/digest.ts'

const image = { reference: 'docker.io/library/debian:12', platform: 'linux/amd64', format: 'ext4' } as const
const digest = digestOf(new Uint8Array())

const multistream = Buffer.from('\x13/multistream/1.0.0\n\x07/noise\n')

/** Messages of somebody who knows the protocols, but not the region's key. */
export const strangerMessages: (() => Buffer)[] = [
  () => multistream,
  () => Buffer.concat([multistream, Buffer.from([0, 32]), randomBytes(32)]),
  () => Buffer.from('GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n'),
  // The first message of a TLS client, and garbage.
  () => Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), randomBytes(501)]),
  () => Buffer.from(encodeRegionMessage({ type: 'hello', region: 'default', name: 'stranger', addresses: [] })),
  () => Buffer.from(encodeObjectRequest({ kind: 'image', ...image })),
  () => Buffer.from(encodeImportRequest({ ...image, manifestDigest: digest })),
  () => randomBytes(64),
  () => randomBytes(1 << 16),
  () => Buffer.alloc(0),
]
