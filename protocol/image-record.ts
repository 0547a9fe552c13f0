import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import type { Digest } from './digest.ts'

/** What a host knows of an image: which rootfs a reference stood for, and where the layers come from. */
export interface ImageRecord {
  /** Canonical form: `docker.io/library/debian:12`, `host:5000/a/b@sha256:...`, `oci:/absolute/dir:tag`. */
  reference: string
  /** `linux/amd64`, `linux/arm64/v8`. */
  platform: string
  /** Digest of {@link manifest}, which is that of the platform where the reference names an index. */
  manifestDigest: Digest
  /** The OCI or Docker v2 image manifest, JSON, its bytes as the registry has them. */
  manifest: string
  rootfsDigest: Digest
}

/** The stored and wire form; SPEC.md, "Image record". */
export function encodeImageRecord(record: ImageRecord): Uint8Array {
  return encodeCbor({ ...record })
}

/** @throws invalid */
export function parseImageRecord(bytes: Uint8Array): ImageRecord {
  const fields = new Fields(parseCbor(bytes, 'image record'), 'image record')
  return {
    reference: fields.text('reference'),
    platform: fields.text('platform'),
    manifestDigest: fields.digest('manifestDigest'),
    manifest: fields.text('manifest'),
    rootfsDigest: fields.digest('rootfsDigest'),
  }
}
