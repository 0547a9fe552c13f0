import type { createRandom } from './random.ts'

type Random = ReturnType<typeof createRandom>

/** Reads of chunks by mounts of images, whose popularity is Zipf-distributed. */
export interface ZipfTrace {
  /** Numbers of chunks, in the order in which they are read. */
  reads: number[]
  /** How many different chunks are read. */
  distinct: number
}

export interface ZipfOptions {
  images: number
  mounts: number
  /** The exponent of Zipf's law. */
  skew: number
  /** How likely it is, at each mount, that two images change their places in popularity. */
  drift: number
}

interface Layer {
  first: number
  count: number
  /** Chunks that a boot reads. */
  hot: number[]
}

const between = (random: Random, least: number, most: number): number => least + random.below(most - least + 1)

/**
 * Images of a base layer, a middle one and one of their own, as registries have them: few bases, some middles, and
 * popular ones are in more images. A mount reads what its image's boot reads, nearly all of it, and some chunks at
 * random; one in thirty reads its own layer from beginning to end.
 */
export function zipfTrace(random: Random, { images, mounts, skew, drift }: ZipfOptions): ZipfTrace {
  let next = 0
  const layer = (least: number, most: number): Layer => {
    const count = between(random, least, most)
    const first = next
    next += count
    const hot = Array.from({ length: count }, (_, i) => first + i).filter(() => random.next() < 0.2)
    return { first, count, hot }
  }
  const bases = Array.from({ length: 8 }, () => layer(150, 400))
  const middles = Array.from({ length: 40 }, () => layer(50, 200))
  const popular = (layers: readonly Layer[]): Layer =>
    layers[Math.floor(random.next() * random.next() * layers.length)]!
  const all = Array.from({ length: images }, () => {
    const layers = [popular(bases), popular(middles), layer(40, 240)]
    return { layers, boot: layers.flatMap(({ hot }) => hot).filter(() => random.next() < 0.85) }
  })
  const order = all.map((_, i) => i)
  const swap = (a: number, b: number): void => void ([order[a], order[b]] = [order[b]!, order[a]!])
  for (let i = order.length - 1; i > 0; i--) swap(i, random.below(i + 1))
  const weights = all.map((_, i) => 1 / (i + 1) ** skew)
  const sum = weights.reduce((a, b) => a + b)
  const reads: number[] = []
  for (let mount = 0; mount < mounts; mount++) {
    if (random.next() < drift) swap(random.below(images), random.below(images))
    let rank = 0
    let left = random.next() * sum - weights[0]!
    while (rank < images - 1 && left > 0) left -= weights[++rank]!
    const { layers, boot } = all[order[rank]!]!
    for (const chunk of boot) if (random.next() < 0.97) reads.push(chunk)
    const size = layers.reduce((total, { count }) => total + count, 0)
    for (let i = 0; i < size * 0.03; i++) {
      const { first, count } = layers[random.below(layers.length)]!
      reads.push(first + random.below(count))
    }
    if (random.next() < 1 / 30) for (let i = 0; i < layers[2]!.count; i++) reads.push(layers[2]!.first + i)
  }
  return { reads, distinct: new Set(reads).size }
}

/**
 * The hits of the best policy there can be, which knows the future: what is read last from now on makes room (Belady,
 * IBM Systems Journal 1966).
 * @param capacity chunks that are kept
 */
export function beladyHits({ reads }: Pick<ZipfTrace, 'reads'>, capacity: number): number {
  const nextRead = new Float64Array(reads.length)
  const last = new Map<number, number>()
  for (let i = reads.length - 1; i >= 0; i--) {
    nextRead[i] = last.get(reads[i]!) ?? Infinity
    last.set(reads[i]!, i)
  }
  const kept = new Map<number, number>()
  // A heap by the next read, the farthest first; an entry whose chunk has been read since is passed over.
  const heap: { at: number; chunk: number }[] = []
  const push = (entry: { at: number; chunk: number }): void => {
    let i = heap.push(entry) - 1
    for (let parent = (i - 1) >> 1; i > 0 && heap[parent]!.at < entry.at; parent = (i - 1) >> 1) {
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = entry
  }
  const pop = (): { at: number; chunk: number } => {
    const top = heap[0]!
    const entry = heap.pop()!
    if (heap.length > 0) {
      let i = 0
      for (;;) {
        let child = 2 * i + 1
        if (child >= heap.length) break
        if (child + 1 < heap.length && heap[child + 1]!.at > heap[child]!.at) child++
        if (heap[child]!.at <= entry.at) break
        heap[i] = heap[child]!
        i = child
      }
      heap[i] = entry
    }
    return top
  }
  let hits = 0
  for (const [i, chunk] of reads.entries()) {
    if (kept.has(chunk)) hits++
    else
      while (kept.size >= capacity) {
        const farthest = pop()
        if (kept.get(farthest.chunk) === farthest.at) kept.delete(farthest.chunk)
      }
    kept.set(chunk, nextRead[i]!)
    push({ at: nextRead[i]!, chunk })
  }
  return hits
}
