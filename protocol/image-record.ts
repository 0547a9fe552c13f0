import { isAttested, parseAttestation, type Attestation } from './attestation.ts'
import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import { digestOf, type Digest } from './digest.ts'
import { isNameStated, parseNameStatement, type NameStatement } from './name-statement.ts'
import { parseRootfsFormat, type RootfsFormat } from './rootfs-manifest.ts'

/** Names an image for one platform, in one format. */
export interface ImageName {
  /** In canonical form: `docker.io/library/debian:12`, `host:5000/a/b@sha256:...`, `oci:/absolute/dir:tag`. */
  reference: string
  /** `linux/amd64`, `linux/arm64/v8`. */
  platform: string
  format: RootfsFormat
}

/**
 * Makes two claims, each signed by itself: what the name stands for, and which rootfs that image is. The image manifest
 * says where its layers are.
 */
export interface ImageRecord extends ImageName {
  /** Digest of {@link manifest}. Where the reference names an index, it is the manifest of the platform. */
  manifestDigest: Digest
  /** The OCI or Docker v2 image manifest, JSON, byte by byte as the registry has it. */
  manifest: string
  rootfsDigest: Digest
  /** That manifest and format are this rootfs: by its maker. */
  attestation: Attestation
  /** That reference and platform stand for this manifest: by the host that asked the registry. */
  nameStatement: NameStatement
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
    nameStatement: parseNameStatement(fields.get('nameStatement')),
  }
}

/** Whether both claims of the record are signed by the keys that it names, and its manifest has the digest in them. */
export function isRecordSigned(record: ImageRecord): boolean {
  return (
    digestOf(Buffer.from(record.manifest)) === record.manifestDigest &&
    isAttested(record, record.attestation) &&
    isNameStated(record, record.nameStatement)
  )
}

/** The fields of an image name. @throws invalid */
export function parseImageName(fields: Fields): ImageName {
  return {
    reference: fields.text('reference'),
    platform: fields.text('platform'),
    format: parseRootfsFormat(fields.get('format')),
  }
}
