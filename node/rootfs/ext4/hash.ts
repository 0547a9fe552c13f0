/** The directory hash "half MD4" over unsigned characters: fs/ext4/hash.c. */

const k2 = 0x5a827999
const k3 = 0x6ed9eba1

const rotate = (value: number, by: number): number => (value << by) | (value >>> (32 - by))

/**
 * @param name bytes of one path component
 * @param seed four 32-bit numbers, s_hash_seed
 * @returns the hash by which an htree orders entries; its lowest bit is 0
 */
export function directoryHash(name: Uint8Array, seed: Uint32Array): number {
  const state = Int32Array.from(seed)
  const words = new Int32Array(8)
  for (let offset = 0; offset < name.length; offset += 32) {
    fill(words, name, offset)
    transform(state, words)
  }
  const hash = (state[1]! & ~1) >>> 0
  // The kernel takes the largest value for the end of a directory.
  return hash === 0xfffffffe ? 0xfffffffc : hash
}

function fill(words: Int32Array, name: Uint8Array, offset: number): void {
  const left = name.length - offset
  let pad = left | (left << 8)
  pad |= pad << 16
  const length = Math.min(left, 32)
  let value = pad
  let word = 0
  for (let i = 0; i < length; i++) {
    value = name[offset + i]! + (value << 8)
    if (i % 4 === 3) {
      words[word++] = value
      value = pad
    }
  }
  if (word < 8) words[word++] = value
  while (word < 8) words[word++] = pad
}

function transform(state: Int32Array, x: Int32Array): void {
  let [a = 0, b = 0, c = 0, d = 0] = state
  const f = (p: number, q: number, r: number): number => r ^ (p & (q ^ r))
  const g = (p: number, q: number, r: number): number => ((p & q) + ((p ^ q) & r)) | 0
  const h = (p: number, q: number, r: number): number => p ^ q ^ r
  const round = (
    mix: typeof f,
    order: readonly number[],
    k: number,
    shifts: readonly [number, number, number, number],
  ): void => {
    for (let i = 0; i < 8; i += 4) {
      a = rotate((a + mix(b, c, d) + x[order[i]!]! + k) | 0, shifts[0])
      d = rotate((d + mix(a, b, c) + x[order[i + 1]!]! + k) | 0, shifts[1])
      c = rotate((c + mix(d, a, b) + x[order[i + 2]!]! + k) | 0, shifts[2])
      b = rotate((b + mix(c, d, a) + x[order[i + 3]!]! + k) | 0, shifts[3])
    }
  }
  round(f, [0, 1, 2, 3, 4, 5, 6, 7], 0, [3, 7, 11, 19])
  round(g, [1, 3, 5, 7, 0, 2, 4, 6], k2, [3, 5, 9, 13])
  round(h, [3, 7, 2, 6, 1, 5, 0, 4], k3, [3, 9, 11, 15])
  state[0]! += a
  state[1]! += b
  state[2]! += c
  state[3]! += d
}
