import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import type { ChunkTable } from './chunk-table.ts'
import { digestBytes, digestFromBytes, digestToBytes, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { formatVersion } from './layer-index.ts'

/** A boot that reads more is not worth telling: a gigabyte of packs, count. */
export const maxProfileChunks = 8192
const maxSeconds = 3600
/** Digests in a sketch: enough to see one chunk in twenty that two images share. */
const sketchSize = 64
/** Of each, its first bytes: two of an image hardly have them in common. */
const sketchedBytes = 6

/** Which rootfs a boot profile is of, or wanted for. */
export interface ProfileSubject {
  rootfs: Digest
  /** What its data regions have, in short: see {@link sketchOf}. */
  sketch: readonly number[]
}

/**
 * What a mount of a rootfs reads first. Chunks go by their digests, so that it is of use to all that have them: the other
 * format, the next version of the image. Advice, and no more: whoever takes it looks up which of the chunks it has.
 */
export interface BootProfile extends ProfileSubject {
  /** How long it was recorded, seconds. */
  seconds: number
  /** In order of the first read. */
  chunks: readonly Digest[]
}

/** The stored and wire form; SPEC.md, "Boot profile". */
export function encodeBootProfile({ rootfs, sketch, seconds, chunks }: BootProfile): Uint8Array {
  const raw = Uint8Array.from(Buffer.concat(chunks.map(digestToBytes)))
  return encodeCbor({ version: formatVersion, rootfs, sketch: encodeSketch(sketch), seconds, chunks: raw })
}

/** @throws invalid for bytes that are not a boot profile of this format version, or one beyond its bounds */
export function parseBootProfile(bytes: Uint8Array): BootProfile {
  const what = 'boot profile'
  const fields = new Fields(parseCbor(bytes, what), what)
  if (fields.get('version') !== formatVersion)
    throw new P2pfsError('invalid', `${what}: its format version is not ${formatVersion}`)
  const chunks = fields.bytes('chunks')
  const count = itemsOf(chunks, digestBytes, maxProfileChunks, what)
  return {
    ...parseProfileSubject(fields, what),
    seconds: fields.unsigned('seconds', maxSeconds),
    chunks: Array.from({ length: count }, (_, i) => digestFromBytes(chunks, i * digestBytes)),
  }
}

/** @throws invalid */
export function parseProfileSubject(fields: Fields, what: string): ProfileSubject {
  const bytes = Buffer.from(fields.bytes('sketch'))
  const count = itemsOf(bytes, sketchedBytes, sketchSize, what)
  const sketch = Array.from({ length: count }, (_, i) => bytes.readUIntBE(i * sketchedBytes, sketchedBytes))
  if (sketch.some((value, i) => i > 0 && value <= sketch[i - 1]!))
    throw new P2pfsError('invalid', `${what}: its sketch is not in order`)
  return { rootfs: fields.digest('rootfs'), sketch }
}

export function encodeSketch(sketch: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(sketch.length * sketchedBytes)
  for (const [i, value] of sketch.entries()) bytes.writeUIntBE(value, i * sketchedBytes, sketchedBytes)
  return Uint8Array.from(bytes)
}

function itemsOf(bytes: Uint8Array, itemBytes: number, max: number, what: string): number {
  const count = bytes.length / itemBytes
  if (!Number.isInteger(count) || count > max)
    throw new P2pfsError('invalid', `${what}: more than ${max} of a kind, or one cut short`)
  return count
}

/**
 * The lowest digests of the data regions, each once and ascending, of each its first 48 bits: the share that two images have in
 * common of theirs is about the share of chunks that they have in common (A. Broder, "On the resemblance and containment of
 * documents", 1997).
 */
export function sketchOf(regions: readonly ChunkTable[]): number[] {
  let lowest: number[] = []
  let bound = Infinity
  for (const { digests, count } of regions) {
    const all = Buffer.from(digests.buffer, digests.byteOffset, digests.byteLength)
    for (let i = 0; i < count; i++) {
      const value = all.readUIntBE(i * digestBytes, sketchedBytes)
      if (value >= bound) continue
      lowest.push(value)
      // Now and then, so that it costs little.
      if (lowest.length >= sketchSize * 4) {
        lowest = lowestOf(lowest)
        bound = lowest.at(sketchSize - 1) ?? Infinity
      }
    }
  }
  return lowestOf(lowest)
}

function lowestOf(values: readonly number[]): number[] {
  return [...new Set(values)].toSorted((one, other) => one - other).slice(0, sketchSize)
}

/** How near two are: infinitely for the same rootfs; else how much of their sketches is the same. */
export function kinshipOf(one: ProfileSubject, other: ProfileSubject): number {
  if (one.rootfs === other.rootfs) return Infinity
  const wanted = new Set(other.sketch)
  return one.sketch.filter((value) => wanted.has(value)).length
}
