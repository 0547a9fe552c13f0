import { isAttested, parseAttestation, type Attestation } from './attestation.ts'
import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import { digestOf, type Digest } from './digest.ts'
import { parseRootfsFormat, type RootfsFormat } from './rootfs-manifest.ts'

/** What a rootfs is asked for by. */
export interface ImageName {
  /** Canonical form: `docker.io/library/debian:12`, `host:5000/a/b@sha256:...`, `oci:/absolute/dir:tag`. */
  reference: string
  /** `linux/amd64`, `linux/arm64/v8`. */
  platform: string
  format: RootfsFormat
}

/** What a host knows of an image: which rootfs it stood for, who says so, and where the layers come from. */
export interface ImageRecord extends ImageName {
  /** Digest of {@link manifest}, which is that of the platform where the reference names an index. */
  manifestDigest: Digest
  /** The OCI or Docker v2 image manifest, JSON, its bytes as the registry has them. */
  manifest: string
  rootfsDigest: Digest
  /** Of whoever built the rootfs. */
  attestation: Attestation
}

/** The stored and wire form; SPEC.md, "Image record". */
export function encodeImageRecord(record: ImageRecord): Uint8Array {
  return encodeCbor({ ...record })
}

/** @throws invalid */
export function parseImageRecord(bytes: Uint8Array): ImageRecord {
  const fields = new Fields(parseCbor(bytes, 'image record'), 'image record')
  return {
    ...parseImageName(fields),
    manifestDigest: fields.digest('manifestDigest'),
    manifest: fields.text('manifest'),
    rootfsDigest: fields.digest('rootfsDigest'),
    attestation: parseAttestation(fields.get('attestation')),
  }
}

/** Whether the record is what its maker has signed, for the manifest that it has. */
export function isRecordAttested(record: ImageRecord): boolean {
  return digestOf(Buffer.from(record.manifest)) === record.manifestDigest && isAttested(record, record.attestation)
}

/** The fields of an image name. @throws invalid */
export function parseImageName(fields: Fields): ImageName {
  return {
    reference: fields.text('reference'),
    platform: fields.text('platform'),
    format: parseRootfsFormat(fields.get('format')),
  }
}
