import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { P2pfsError, type ErrorCode } from '../errors.ts'
import {
  encodeSeedJob,
  maxSeedJobBytes,
  parseDemand,
  parseErrorCode,
  parseSeedExtent,
  parseSeedImage,
  parseSeedJob,
  parseSeedJobId,
  parseSeedProgress,
  type MountDemand,
  type SeedExtent,
  type SeedImage,
  type SeedJob,
  type SeedProgress,
} from '../seed-job.ts'

/** One request per stream, and its answers. */
export const seedProtocol = '/p2pfs/seed/1'

/** Longest message (bytes): a job and what stands around it. */
export const maxSeedMessageBytes = maxSeedJobBytes + 1024
/** Jobs that one member tells another of at most. */
export const maxToldJobs = 256

/** Images that one message of mounts names at most. */
export const maxToldMounts = 64

/** That an image was mounted so many times; 0 where it was only resolved, by a registry's answer. */
export interface ToldMount {
  image: SeedImage
  mounts: number
}

/** A request to a host: the image that it is to hold, and until when. */
export interface PlaceRequest extends SeedImage {
  /** Id of the job. */
  job: string
  extent: SeedExtent
  /** Until when it is pinned (ms since 1970). */
  untilMs: number
  /** Given if no operator has ordered it. */
  demand?: MountDemand
}

export type SeedRequest =
  /** Answers: progress, then held or refused. */
  | ({ type: 'place' } & PlaceRequest)
  /** To keep this record of a job, unless a newer one is there. Answer: the job as it is kept then, or refused. */
  | { type: 'keep'; job: SeedJob }
  /** The pins of a job end. Answer: done. */
  | { type: 'release'; job: string }
  /** Answers: the jobs that are kept here, then done. */
  | { type: 'jobs' }
  /** Images that the asker has mounted lately. Answer: done. */
  | { type: 'mounted'; images: ToldMount[] }

export type SeedAnswer =
  /** Also the target's sign of life. */
  | ({ type: 'progress' } & SeedProgress)
  | ({ type: 'held' } & SeedProgress)
  | { type: 'job'; job: SeedJob }
  | { type: 'done' }
  | { type: 'refused'; code: ErrorCode }

/** SPEC.md, "Seed protocol". */
export function encodeSeedRequest(request: SeedRequest): Uint8Array {
  switch (request.type) {
    case 'keep':
      return encodeCbor({ type: request.type, job: encodeSeedJob(request.job) })
    case 'mounted':
      return encodeCbor({
        type: request.type,
        images: request.images.map(({ image, mounts }) => ({ ...image, mounts })),
      })
    case 'place':
    case 'release':
    case 'jobs':
      return encodeCbor(request)
  }
}

/** @throws invalid */
export function parseSeedRequest(bytes: Uint8Array): SeedRequest {
  const fields = new Fields(parseCbor(bytes, 'seed request'), 'seed request')
  const type = fields.text('type')
  switch (type) {
    case 'place':
      return {
        type,
        ...parseSeedImage(fields),
        job: parseSeedJobId(fields.get('job')),
        extent: parseSeedExtent(fields),
        untilMs: fields.unsigned('untilMs'),
        ...parseDemand(fields),
      }
    case 'keep':
      return { type, job: parseSeedJob(fields.bytes('job')) }
    case 'release':
      return { type, job: parseSeedJobId(fields.get('job')) }
    case 'jobs':
      return { type }
    case 'mounted': {
      const list = fields.list('images')
      if (list.length > maxToldMounts) throw new P2pfsError('invalid', 'seed request: too many images')
      return { type, images: list.map(parseToldMount) }
    }
    default:
      throw new P2pfsError('invalid', `seed request: unknown type ${type.slice(0, 20)}`)
  }
}

function parseToldMount(value: unknown): ToldMount {
  const fields = new Fields(value, 'mounted image')
  return { image: parseSeedImage(fields), mounts: fields.unsigned('mounts') }
}

export function encodeSeedAnswer(answer: SeedAnswer): Uint8Array {
  return answer.type === 'job' ? encodeCbor({ type: answer.type, job: encodeSeedJob(answer.job) }) : encodeCbor(answer)
}

/** @throws invalid */
export function parseSeedAnswer(bytes: Uint8Array): SeedAnswer {
  const fields = new Fields(parseCbor(bytes, 'seed answer'), 'seed answer')
  const type = fields.text('type')
  switch (type) {
    case 'progress':
    case 'held':
      return { type, ...parseSeedProgress(fields) }
    case 'job':
      return { type, job: parseSeedJob(fields.bytes('job')) }
    case 'done':
      return { type }
    case 'refused':
      return { type, code: parseErrorCode(fields, 'code') }
    default:
      throw new P2pfsError('invalid', `seed answer: unknown type ${type.slice(0, 20)}`)
  }
}
