import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import type { ChunkTable } from './chunk-table.ts'
import { digestBytes, digestFromBytes, digestToBytes, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { formatVersion } from './layer-index.ts'

/** Most chunks of a profile: a gigabyte of packs. A boot that reads more is of no use to others. */
export const maxProfileChunks = 8192
const maxSeconds = 3600
/** Digests of a sketch: enough to notice when two images share one chunk in twenty. */
const sketchSize = 64
/** First bytes of each digest: two digests of an image hardly ever have them in common. */
const sketchedBytes = 6

/** The rootfs that a boot profile was recorded of, or is asked for. */
export interface ProfileSubject {
  rootfs: Digest
  /** A summary of the chunks of its data segments: see {@link sketchOf}. */
  sketch: readonly number[]
}

/**
 * The first reads of a mount of a rootfs. It names chunks by their digests, so it is of use to every rootfs that has
 * them: the other format, the next version of the image. It is advice: whoever takes it ignores chunks that its own
 * rootfs does not have.
 */
export interface BootProfile extends ProfileSubject {
  /** How long it was recorded (s). */
  seconds: number
  /** In the order of their first reads. */
  chunks: readonly Digest[]
}

/** The stored and wire form; SPEC.md, "Boot profile". */
export function encodeBootProfile({ rootfs, sketch, seconds, chunks }: BootProfile): Uint8Array {
  const raw = Uint8Array.from(Buffer.concat(chunks.map(digestToBytes)))
  return encodeCbor({ version: formatVersion, rootfs, sketch: encodeSketch(sketch), seconds, chunks: raw })
}

/** @throws invalid for bytes that are not a boot profile of this format version, or that exceed its bounds */
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
    throw new P2pfsError('invalid', `${what}: the sketch is not in ascending order`)
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
    throw new P2pfsError('invalid', `${what}: more than ${max} items, or the last one is cut short`)
  return count
}

/**
 * The first 48 bits of the lowest digests in the data segments, each once, ascending. The more of their sketches two
 * images have in common, the more chunks they have in common (A. Broder, "On the resemblance and containment of
 * documents", 1997).
 */
export function sketchOf(segments: readonly ChunkTable[]): number[] {
  let lowest: number[] = []
  let bound = Infinity
  for (const { digests, count } of segments) {
    const all = Buffer.from(digests.buffer, digests.byteOffset, digests.byteLength)
    for (let i = 0; i < count; i++) {
      const value = all.readUIntBE(i * digestBytes, sketchedBytes)
      if (value >= bound) continue
      lowest.push(value)
      // Sorting only now and then costs little.
      if (lowest.length >= sketchSize * 4) {
        lowest = lowestOf(lowest)
        bound = lowest.at(sketchSize - 1) ?? Infinity
      }
    }
  }
  return lowestOf(lowest)
}

function lowestOf(values: readonly number[]): number[] {
  return [...new Set(values)].toSorted((a, b) => a - b).slice(0, sketchSize)
}

/** How alike two rootfs are: the number of digests that their sketches have in common; Infinity for the same rootfs. */
export function kinshipOf(a: ProfileSubject, b: ProfileSubject): number {
  if (a.rootfs === b.rootfs) return Infinity
  const inB = new Set(b.sketch)
  return a.sketch.filter((value) => inB.has(value)).length
}
