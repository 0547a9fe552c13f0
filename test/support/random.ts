/** Seeded random numbers (mulberry32). A failure that names its seed can be repeated. */
export function createRandom(seed: number): {
  next: () => number
  below: (n: number) => number
  bytes: (n: number) => Buffer
} {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (n: number): number => Math.floor(next() * n)
  return {
    next,
    below,
    bytes: (n) => {
      const bytes = Buffer.alloc(n)
      for (let i = 0; i < n; i++) bytes[i] = next() * 256
      return bytes
    },
  }
}
