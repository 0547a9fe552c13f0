import { encodeCbor, Fields, parseCbor } from '../../protocol/cbor.ts'
import type { Digest } from '../../protocol/digest.ts'
import {
  parseDemand,
  parseSeedExtent,
  parseSeedImage,
  parseSeedJobId,
  type MountDemand,
  type SeedExtent,
  type SeedImage,
} from '../../protocol/seed-job.ts'

/** That this host keeps an image for a time, whoever reads it or not: it is not evicted before that. */
export interface PinRecord extends SeedImage {
  /** Id of the seed job that wants it. */
  job: string
  extent: SeedExtent
  /** Its end (ms since 1970). */
  untilMs: number
  /** Peer id of the host that asked for it. */
  peer: string
  sizeBytes: number
  /** Given if no operator has ordered it. */
  demand?: MountDemand
  /**
   * Given for an image that has come because it is mounted often, and that nobody has ordered here. Such a record
   * outlives its pin, with `untilMs` 0, so that the room can be had again; `sizeBytes` is 0 when it has been.
   */
  evictable?: true
}

/** Identifies a pin. */
export type PinKey = { job: string; rootfsDigest: Digest }

/** The stored form: CBOR. */
export function encodePinRecord(pin: PinRecord): Uint8Array {
  return encodeCbor({ ...pin })
}

/** @throws invalid */
export function parsePinRecord(bytes: Uint8Array): PinRecord {
  const fields = new Fields(parseCbor(bytes, 'pin record'), 'pin record')
  return {
    ...parseSeedImage(fields),
    job: parseSeedJobId(fields.get('job')),
    extent: parseSeedExtent(fields),
    untilMs: fields.unsigned('untilMs'),
    peer: fields.text('peer'),
    sizeBytes: fields.unsigned('sizeBytes'),
    ...parseDemand(fields),
    ...(fields.get('evictable') === true && { evictable: true }),
  }
}
