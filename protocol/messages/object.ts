import { encodeSketch, parseProfileSubject, type ProfileSubject } from '../boot-profile.ts'
import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import type { Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'
import { parseImageName, type ImageName } from '../image-record.ts'

/** One request and one answer per stream. */
export const objectProtocol = '/p2pfs/object/4'

/** Longest request (bytes): the name of an image in a layout on disk, whose path has up to 4095. */
export const maxObjectRequestBytes = 8192
/**
 * Longest answer (bytes): the compressed index of a layer of a million entries, or the manifest of a rootfs of
 * terabytes.
 */
export const maxObjectBytes = 64 * 1024 * 1024
/** Longest blob (bytes): larger ones each host reads for itself. */
export const maxSharedBlobBytes = 16 * 1024 * 1024
/** Longest layer index or blob map after decompression (bytes). */
export const maxLayerIndexBytes = 512 * 1024 * 1024

export type ObjectRequest =
  /** The answer is an image record. */
  | ({ kind: 'image' } & ImageName)
  /** The answer is a rootfs manifest. */
  | { kind: 'rootfs'; digest: Digest }
  /** The answer is a layer index, zstd. */
  | { kind: 'layer'; diffId: Digest }
  /** The answer is the map of the blob with this digest, zstd. */
  | { kind: 'map'; digest: Digest }
  /** The answer is the boot profile of that rootfs, or else of the one that is most like it. */
  | ({ kind: 'profile' } & ProfileSubject)
  /**
   * The answer is what the peer has read from a registry lately or reads now: the blob or manifest with this digest, or what the
   * registry said to a question whose key this is.
   */
  | { kind: 'blob'; digest: Digest }
  /**
   * The answer is an empty object where an import of the image with this manifest is under way; or, for the key of a registry
   * (`registryKey`), a registry word.
   */
  | { kind: 'import'; digest: Digest }

/** SPEC.md, "Object protocol". @throws unsupported for a name that is too long: a peer would take it for a fault */
export function encodeObjectRequest(request: ObjectRequest): Uint8Array {
  const bytes = encodeCbor(request.kind === 'profile' ? { ...request, sketch: encodeSketch(request.sketch) } : request)
  if (bytes.length > maxObjectRequestBytes)
    throw new P2pfsError('unsupported', 'the name of the image is too long to ask peers for it')
  return bytes
}

/** @throws invalid */
export function parseObjectRequest(bytes: Uint8Array): ObjectRequest {
  const fields = new Fields(parseCbor(bytes, 'object request'), 'object request')
  const kind = fields.text('kind')
  switch (kind) {
    case 'image':
      return { kind, ...parseImageName(fields) }
    case 'rootfs':
      return { kind, digest: fields.digest('digest') }
    case 'layer':
      return { kind, diffId: fields.digest('diffId') }
    case 'map':
    case 'blob':
    case 'import':
      return { kind, digest: fields.digest('digest') }
    case 'profile':
      return { kind, ...parseProfileSubject(fields, 'object request') }
    default:
      throw new P2pfsError('invalid', `object request: unknown kind ${kind.slice(0, 20)}`)
  }
}

/** One byte: 1 where the object follows, 0 where this host does not have it. */
export function encodeObjectAnswer(object: Uint8Array | undefined): Uint8Array {
  return object === undefined ? Uint8Array.of(0) : Buffer.concat([Uint8Array.of(1), object])
}

/** Comes before the answer where this host waits for a blob that it reads. */
export function encodeObjectComing(): Uint8Array {
  return Uint8Array.of(2)
}

/** @returns the object; undefined where the peer does not have it; `coming` where the answer comes later @throws invalid */
export function parseObjectAnswer(bytes: Uint8Array): Uint8Array | 'coming' | undefined {
  if (bytes[0] === 0 && bytes.length === 1) return undefined
  if (bytes[0] === 2 && bytes.length === 1) return 'coming'
  if (bytes[0] !== 1)
    throw new P2pfsError('invalid', 'object answer: it says neither that the object is here, nor is not, nor is coming')
  return bytes.subarray(1)
}
