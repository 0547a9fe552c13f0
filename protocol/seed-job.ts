import { hash } from 'node:crypto'
import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import type { Digest } from './digest.ts'
import { errorCodes, P2pfsError, type ErrorCode } from './errors.ts'
import { parseImageName, type ImageName } from './image-record.ts'

/** Longest encoded job (bytes): 1024 targets with their names. */
export const maxSeedJobBytes = 512 * 1024
/** Hosts that a job names as targets, and those that an operator may name. */
export const maxSeedTargets = 1024
/** Hosts that keep a job, and those that kept it before. */
export const maxSeedKeepers = 8
/** Longest reference, platform, or name of a host (UTF-16 code units). */
const maxTextLength = 1024
const idPattern = /^[0-9a-f]{32}$/

/** `full`: every chunk of the rootfs. `hot`: its metadata, and the chunks of its boot profile. */
export const seedExtents = ['full', 'hot'] as const
export type SeedExtent = (typeof seedExtents)[number]

/** One rootfs, as the host that took the job resolved it. */
export interface SeedImage extends ImageName {
  manifestDigest: Digest
  rootfsDigest: Digest
}

/** `copies`: on so many hosts. `all`: on all members. `on`: on these, by peer id. */
export type SeedPlaces = { copies: number } | { all: true } | { on: readonly string[] }

/**
 * `placing`: it works on it. `held`: it has all. `failed`: it has refused, or could not; `code` says why. `gone`: it is
 * no connected member.
 */
export const targetStates = ['placing', 'held', 'failed', 'gone'] as const
export type TargetState = (typeof targetStates)[number]

/** Chunks, each counted once for each place where it stands in the image. */
export interface SeedProgress {
  /** On the disk. */
  held: number
  /** On the disk, and hashed since the image was pinned there. */
  verified: number
  total: number
}

/** A host of the job, and how much of the image it says it has. */
export interface SeedTarget extends SeedProgress {
  /** Peer id. */
  peer: string
  /** As the host calls itself. */
  name: string
  extent: SeedExtent
  state: TargetState
  /** The reason of `failed`. */
  code?: ErrorCode
}

/** Why an order was given by nobody: so often the image is mounted in the region. */
export interface MountDemand {
  /** Mounts that are counted, the older the less; rounded. */
  mounts: number
  /** From so many hosts, as far as they are counted. */
  hosts: number
}

/** An order to place an image on hosts of the region, and how far it has got. Times are in ms since 1970. */
export interface SeedJob extends SeedImage {
  id: string
  /** `hot`: metadata and boot profile on all members, besides the whole image where `places` says. */
  extent: SeedExtent
  places: SeedPlaces
  createdAtMs: number
  /** The time at which it begins. */
  atMs: number
  /** The time at which the job ends, and with it the pins of the image. */
  endsAtMs: number
  /** Peer id of the host that took it from its operator. */
  acceptedBy: string
  /** Peer ids of the hosts that keep it. The first of them that is awake coordinates. */
  keepers: readonly string[]
  /** Grows with every change that a coordinator makes. */
  revision: number
  cancelled: boolean
  targets: readonly SeedTarget[]
  /** The reason of a job that no operator has ordered. */
  demand?: MountDemand
  /**
   * Equal for jobs of one order, which asks for the image in several formats: the id of one of them. Their hosts are the
   * same, as far as that is possible.
   */
  group?: string
}

/**
 * The same order has the same id, so who gives it twice has one job. A job of an image that is mounted often is the same
 * one on however many hosts.
 */
export function seedJobId({ reference, platform, rootfsDigest, extent, places, atMs, demand }: SeedOrder): string {
  const order =
    demand === undefined
      ? [reference, platform, rootfsDigest, extent, places, atMs]
      : [reference, platform, rootfsDigest, 'mounts']
  return hash('sha256', JSON.stringify(order), 'hex').slice(0, 32)
}

type SeedOrder = Pick<SeedJob, 'reference' | 'platform' | 'rootfsDigest' | 'extent' | 'places' | 'demand'> & {
  /** 0 where it begins at once. */
  atMs: number
}

/**
 * Chooses the record of a job that counts, of two: that of the order that was given last; within one order the cancelled record;
 * else the one with more changes; the first where they are equal in all that.
 */
export function newerJob(first: SeedJob, second: SeedJob): SeedJob {
  if (first.createdAtMs !== second.createdAtMs) return first.createdAtMs > second.createdAtMs ? first : second
  if (first.cancelled !== second.cancelled) return first.cancelled ? first : second
  return second.revision > first.revision ? second : first
}

/** Whether a target has every chunk, and has hashed every one. */
export function isCopy({ state, held, verified, total }: SeedTarget): boolean {
  return state === 'held' && total > 0 && held === total && verified === total
}

/** The stored and wire form; SPEC.md, "Seed job". */
export function encodeSeedJob(job: SeedJob): Uint8Array {
  return encodeCbor({ version: 1, ...job })
}

/** @throws invalid */
export function parseSeedJob(bytes: Uint8Array): SeedJob {
  if (bytes.length > maxSeedJobBytes) throw new P2pfsError('invalid', 'seed job: too long')
  const fields = new Fields(parseCbor(bytes, 'seed job'), 'seed job')
  if (fields.get('version') !== 1) throw new P2pfsError('invalid', 'seed job: unknown version')
  const keepers = parseTexts(fields, 'keepers', maxSeedKeepers)
  if (keepers.length === 0) throw new P2pfsError('invalid', 'seed job: no keepers')
  const targets = fields.list('targets')
  if (targets.length > maxSeedTargets) throw new P2pfsError('invalid', 'seed job: too many targets')
  return {
    ...parseSeedImage(fields),
    id: parseSeedJobId(fields.get('id')),
    extent: parseSeedExtent(fields),
    places: parsePlaces(fields.get('places')),
    createdAtMs: fields.unsigned('createdAtMs'),
    atMs: fields.unsigned('atMs'),
    endsAtMs: fields.unsigned('endsAtMs'),
    acceptedBy: shortText(fields, 'acceptedBy'),
    keepers,
    revision: fields.unsigned('revision'),
    cancelled: parseFlag(fields, 'cancelled'),
    targets: targets.map(parseTarget),
    ...parseDemand(fields),
    ...(fields.get('group') !== undefined && { group: parseSeedJobId(fields.get('group')) }),
  }
}

/** @throws invalid */
export function parseDemand(fields: Fields): { demand?: MountDemand } {
  if (fields.get('demand') === undefined) return {}
  const demand = new Fields(fields.get('demand'), 'demand')
  return { demand: { mounts: demand.unsigned('mounts'), hosts: demand.unsigned('hosts') } }
}

/** @throws invalid */
export function parseSeedImage(fields: Fields): SeedImage {
  const name = parseImageName(fields)
  if (name.reference.length > maxTextLength || name.platform.length > maxTextLength)
    throw new P2pfsError('invalid', 'seed job: the name of the image is too long')
  return { ...name, manifestDigest: fields.digest('manifestDigest'), rootfsDigest: fields.digest('rootfsDigest') }
}

/** @throws invalid */
export function parseSeedJobId(id: unknown): string {
  if (typeof id !== 'string' || !idPattern.test(id))
    throw new P2pfsError('invalid', 'the id of a seed is 32 hexadecimal digits')
  return id
}

/** @throws invalid */
export function parseSeedExtent(fields: Fields): SeedExtent {
  return oneOf(seedExtents, fields, 'extent')
}

/** @throws invalid where more is held than there is */
export function parseSeedProgress(fields: Fields): SeedProgress {
  const total = fields.unsigned('total')
  const held = fields.unsigned('held', total)
  return { held, verified: fields.unsigned('verified', held), total }
}

/** @throws invalid */
export function parseErrorCode(fields: Fields, key: string): ErrorCode {
  return oneOf(errorCodes, fields, key)
}

function parseTarget(value: unknown): SeedTarget {
  const fields = new Fields(value, 'target of a seed job')
  return {
    peer: shortText(fields, 'peer'),
    name: shortText(fields, 'name'),
    extent: parseSeedExtent(fields),
    state: oneOf(targetStates, fields, 'state'),
    ...(fields.get('code') === undefined ? {} : { code: parseErrorCode(fields, 'code') }),
    ...parseSeedProgress(fields),
  }
}

function parsePlaces(value: unknown): SeedPlaces {
  const fields = new Fields(value, 'places of a seed job')
  if (fields.get('on') !== undefined) return { on: parseTexts(fields, 'on', maxSeedTargets) }
  if (fields.get('all') !== undefined && parseFlag(fields, 'all')) return { all: true }
  return { copies: fields.unsigned('copies', maxSeedTargets) }
}

function parseTexts(fields: Fields, key: string, max: number): string[] {
  const list = fields.list(key)
  if (list.length > max) throw new P2pfsError('invalid', `seed job: more than ${max} ${key}`)
  const items = new Fields(list, `seed job: ${key}`)
  return list.map((_, i) => shortText(items, i))
}

function shortText(fields: Fields, key: string | number): string {
  const text = fields.text(key)
  if (text.length > maxTextLength) throw new P2pfsError('invalid', `seed job: ${key} is too long`)
  return text
}

function parseFlag(fields: Fields, key: string): boolean {
  return oneOf([true, false], fields, key)
}

function oneOf<T>(values: readonly T[], fields: Fields, key: string): T {
  const value = values.find((candidate) => candidate === fields.get(key))
  if (value === undefined) throw new P2pfsError('invalid', `seed job: ${key} is not one of ${values.join(', ')}`)
  return value
}
