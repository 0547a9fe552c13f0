import { hash } from 'node:crypto'

/** Rings on which each host has a neighbour on either side: eight neighbours make a graph that hardly falls apart. */
export const ringCount = 4

/**
 * Figures that are computed of a peer id once: its places on the rings, and the words that its share of keys is
 * computed of.
 */
export interface MemberHash {
  /** Places on the {@link ringCount} rings: words with a sign, which take least memory. */
  readonly places: readonly number[]
  readonly bucket: number
}

/** SPEC.md, "Region protocol". */
export function memberHash(id: string): MemberHash {
  const digest = hash('sha256', id, 'buffer')
  const places = Array.from({ length: ringCount }, (_, ring) => digest.readInt32BE(ring * 4))
  return { places, bucket: digest[0]! }
}

/** A well mixed word of two (the finalizer of MurmurHash3, twice). */
export function mix(a: number, b: number): number {
  let h = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ b
  for (let round = 0; round < 2; round++) {
    h ^= h >>> 16
    h = Math.imul(h, 0x85ebca6b)
    h ^= h >>> 13
    h = Math.imul(h, 0xc2b2ae35)
    h ^= h >>> 16
  }
  return h >>> 0
}
