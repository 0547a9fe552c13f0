import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { FindOptions, ResolvedRootfs } from '../model/image.ts'
import type { ByteProgress } from '../model/progress.ts'

/** Askers that are told of layers as they are read: enough for one to be left when the steward is lost. */
const keepers = 2
/** Imports for peers that are under way at once: each takes two threads, and memory by the image. */
const maxForPeers = 4

/** Somebody who waits for an import, on this host or another. */
interface Waiter {
  onProgress: ((progress: ByteProgress) => void) | undefined
  /** Peers only. */
  onLayer: ((diffId: Digest) => void) | undefined
  /** Of the layers that have been read. */
  toldLayers: number
}

interface Running extends ByteProgress {
  reference: string
  manifestDigest: Digest
  layers: Digest[]
  waiters: Set<Waiter>
}

/** An import under way, as the status shows it. */
export interface RunningImport extends ByteProgress {
  reference: string
  /** Waiting peers. */
  forPeers: number
}

export interface WaitOptions extends FindOptions {
  /** Given by peers: they may be told of layers whose indexes can be taken. */
  onLayer?: (diffId: Digest) => void
}

/** The imports that this host runs: one of an image, whoever wants it here or in the region; all who wait see how far it is. */
export class RunningImports {
  readonly #flights = new SingleFlight<ResolvedRootfs>()
  readonly #running = new Map<string, Running>()

  /**
   * Runs the task, or joins its run; it is aborted when nobody waits for it any more.
   * @throws busy for one more import that only peers want; what the task throws
   */
  async run(
    { key, reference, manifestDigest }: { key: string; reference: string; manifestDigest: Digest },
    { signal, onProgress, onLayer }: WaitOptions,
    task: (options: Required<WaitOptions>) => Promise<ResolvedRootfs>,
  ): Promise<ResolvedRootfs> {
    signal.throwIfAborted()
    if (onLayer !== undefined && !this.#running.has(key) && this.#forPeers() >= maxForPeers)
      throw new P2pfsError('busy', `this host runs ${maxForPeers} imports for others`)
    const running = this.#running.get(key) ?? {
      reference,
      manifestDigest,
      doneBytes: 0,
      totalBytes: 0,
      layers: [],
      waiters: new Set<Waiter>(),
    }
    this.#running.set(key, running)
    const waiter = { onProgress, onLayer, toldLayers: 0 }
    running.waiters.add(waiter)
    tellLayers(running)
    try {
      return await this.#flights.run(
        key,
        signal,
        async (signal) =>
          await task({
            signal,
            onProgress: (progress) => report(running, progress),
            onLayer: (diffId) => finished(running, diffId),
          }),
      )
    } finally {
      running.waiters.delete(waiter)
      // With the last waiter the flight ends: the next one is another.
      if (running.waiters.size === 0 && this.#running.get(key) === running) this.#running.delete(key)
    }
  }

  /** Whether an import of the image with this manifest is under way. */
  has(manifestDigest: Digest): boolean {
    return [...this.#running.values()].some((running) => running.manifestDigest === manifestDigest)
  }

  list(): RunningImport[] {
    return [...this.#running.values()].map(({ reference, waiters, doneBytes, totalBytes }) => ({
      reference,
      forPeers: peersAmong(waiters).length,
      doneBytes,
      totalBytes,
    }))
  }

  #forPeers(): number {
    return [...this.#running.values()].filter(({ waiters }) => peersAmong(waiters).length > 0).length
  }
}

function report(running: Running, { doneBytes, totalBytes }: ByteProgress): void {
  Object.assign(running, { doneBytes, totalBytes })
  for (const { onProgress } of running.waiters) onProgress?.({ doneBytes, totalBytes })
}

function finished(running: Running, diffId: Digest): void {
  running.layers.push(diffId)
  tellLayers(running)
}

function tellLayers({ layers, waiters }: Running): void {
  for (const peer of peersAmong(waiters).slice(0, keepers)) {
    while (peer.toldLayers < layers.length) peer.onLayer?.(layers[peer.toldLayers++]!)
  }
}

function peersAmong(waiters: Set<Waiter>): Waiter[] {
  return [...waiters].filter(({ onLayer }) => onLayer !== undefined)
}
