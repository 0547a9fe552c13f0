import { setTimeout as sleep } from 'node:timers/promises'
import type { BootingRootfs } from './booting-rootfs.ts'

export interface BootRecorderParts {
  image: Pick<BootingRootfs['image'], 'readOrder'>
  /** Whether a read waits for a chunk at this moment. */
  isWaiting: () => boolean
}

export interface BootRecorderOptions {
  /** How often the recorder looks at the image (ms). */
  intervalMs?: number
  /** A boot is over when it has used some chunks, and no new one for this long (ms). */
  quietMs?: number
  /**
   * A boot ends after this long in which no read waited (ms). Waiting does not count: over a slow link the same boot
   * takes longer.
   */
  maxActiveMs?: number
  /** A boot ends after this long in any case (ms): a tree may be mounted long before its program starts. */
  maxMs?: number
}

/** A boot has not begun before this many chunks are read: a kernel reads fewer to mount an image, and then rests. */
const minChunks = 16

export interface RecordedBoot {
  /** Positions of chunks in the order of their first use. */
  chunks: number[]
  /** How many chunks were used: more than `chunks` has if there were more than are kept. */
  count: number
  seconds: number
}

/** Waits until a boot from the image is over, or the signal is aborted. @returns the chunks that it has read */
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
  const order = new Int32Array(image.readOrder)
  let seen = 0
  let activeMs = 0
  let unchangedMs = 0
  for (
    let ms = 0;
    ms < maxMs && activeMs < maxActiveMs && !(unchangedMs >= quietMs && seen >= minChunks);
    ms += intervalMs
  ) {
    await sleep(intervalMs, undefined, { signal, ref: false }).catch(() => undefined)
    if (signal.aborted) break
    const count = Atomics.load(order, 0)
    if (isWaiting()) unchangedMs = 0
    else {
      if (seen > 0) activeMs += intervalMs
      unchangedMs = count === seen ? unchangedMs + intervalMs : 0
    }
    seen = count
  }
  const count = Atomics.load(order, 0)
  const chunks = Array.from(order.subarray(1, 1 + Math.min(count, order.length - 1)), (entry) => entry - 1).filter(
    (chunk) => chunk >= 0,
  )
  return { chunks, count, seconds: Math.round(activeMs / 1000) }
}
