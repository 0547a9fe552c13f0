import { setTimeout as sleep } from 'node:timers/promises'
import type { BlockImage } from '../mount/fuse/block-image.ts'

export interface BootRecorderParts {
  image: Pick<BlockImage, 'order'>
  /** Whether a read waits for a chunk at this moment. */
  isWaiting: () => boolean
}

export interface BootRecorderOptions {
  /** How often it looks, milliseconds. */
  intervalMs?: number
  /** A boot is over when it has touched nothing new for this long, and something before. */
  quietMs?: number
  /** Or after this long in which no read waited: over a slow link the same boot takes longer. */
  maxActiveMs?: number
  /** Or after this long, whatever happens: a tree may be mounted long before its program starts. */
  maxMs?: number
}

/** What a kernel reads to mount an image, and then rests: until there is more, a boot has not begun. */
const minChunks = 16

export interface RecordedBoot {
  /** Numbers of chunks in order of the first read. */
  chunks: number[]
  /** How many there were: more than `chunks` has where it has all that are kept. */
  count: number
  seconds: number
}

/** Waits until a boot from the image is over, or the signal says so. @returns what it has read */
export async function recordBoot(
  { image, isWaiting }: BootRecorderParts,
  {
    signal,
    intervalMs = 500,
    quietMs = 5_000,
    maxActiveMs = 30_000,
    maxMs = 600_000,
  }: BootRecorderOptions & { signal: AbortSignal },
): Promise<RecordedBoot> {
  const order = new Int32Array(image.order)
  let seen = 0
  let activeMs = 0
  let quiet = 0
  for (let ms = 0; ms < maxMs && activeMs < maxActiveMs && !(quiet >= quietMs && seen >= minChunks); ms += intervalMs) {
    await sleep(intervalMs, undefined, { signal, ref: false }).catch(() => undefined)
    if (signal.aborted) break
    const count = Atomics.load(order, 0)
    if (isWaiting()) quiet = 0
    else {
      if (seen > 0) activeMs += intervalMs
      quiet = count === seen ? quiet + intervalMs : 0
    }
    seen = count
  }
  const count = Atomics.load(order, 0)
  const chunks = Array.from(order.subarray(1, 1 + Math.min(count, order.length - 1)), (place) => place - 1).filter(
    (chunk) => chunk >= 0,
  )
  return { chunks, count, seconds: Math.round(activeMs / 1000) }
}
