import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName } from '../../protocol/image-record.ts'
import { holds } from '../../protocol/messages/location.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'
import type { FindOptions, FoundRootfs } from '../model/image.ts'
import type { ByteProgress } from '../model/progress.ts'
import type { Location } from '../peers/location/location.ts'
import { imageKey } from './decisions.ts'
import { peerImportLimits, type PeerImportLimits } from './peer-import-limits.ts'

/** Waiting peers that are told of each layer as it is read: if this host is lost, two of them have the layer. */
const maxLayerTakers = 2

/** Somebody who waits for an import, on this host or on another one. */
interface Waiter {
  onProgress: ((progress: ByteProgress) => void) | undefined
  /** Peers only. */
  onLayer: ((diffId: Digest) => void) | undefined
  /** Layers that this waiter has been told of. */
  layersTold: number
}

interface Running extends ByteProgress {
  reference: string
  manifestDigest: Digest
  /** Diff ids of the layers that have been read. */
  layers: Digest[]
  waiters: Set<Waiter>
  /** Whether any of these does more than want the image in time, as a seed does. */
  urgency: Urgency
  /** The peer that it was begun for, with the bounds of what is done for peers; undefined for this host. */
  begunFor: string | undefined
}

/** An import under way, as the status shows it. */
export interface RunningImport extends ByteProgress {
  reference: string
  /** Number of waiting peers. */
  forPeers: number
}

export interface WaitOptions extends FindOptions {
  /** Given for peers: called for each layer whose index the peer can copy. */
  onLayer?: (diffId: Digest) => void
  /** The peer that waits. */
  peer?: string
}

/** How {@link RunningImports} knows an import. */
export interface ImportKey {
  key: string
  reference: string
  manifestDigest: Digest
}

/** What an import tells all who wait for it, and when it is to end. */
export type TaskOptions = Required<Omit<WaitOptions, 'peer'>>
type ImportTask = (options: TaskOptions) => Promise<FoundRootfs>

/** The imports that this host runs. An image is imported once for all who want it, and all of them see its progress. */
export class RunningImports {
  readonly #flights = new SingleFlight<FoundRootfs>()
  readonly #running = new Map<string, Running>()
  readonly #limits: Pick<PeerImportLimits, 'importsAtOnce' | 'importsAtOncePerPeer'>

  readonly #location: Pick<Location, 'hold' | 'release'> | undefined
  /** How many have ended so. An import that nobody waits for any more is `aborted`. */
  readonly ended = { imported: 0, failed: 0, aborted: 0 }

  /** @param parts `location`: is told which images are being imported; undefined where nobody else asks */
  constructor(
    { location }: { location?: Pick<Location, 'hold' | 'release'> } = {},
    limits: Pick<PeerImportLimits, 'importsAtOnce' | 'importsAtOncePerPeer'> = peerImportLimits,
  ) {
    this.#location = location
    this.#limits = limits
  }

  /**
   * Runs the task, or joins the run of the same key. The run is aborted when nobody waits for it any more. One that was
   * begun for peers has bounds that are not this host's: where it fails, those who want the image here run their own.
   * @throws busy if only peers want this import, and too many of those run already; what the task throws
   */
  async run(image: ImportKey, options: WaitOptions, task: ImportTask): Promise<FoundRootfs> {
    const isForPeers = this.#running.get(image.key)?.begunFor !== undefined
    if (options.onLayer !== undefined || !isForPeers) return await this.#run(image, options, task)
    try {
      return await this.#run(image, options, task)
    } catch (error) {
      options.signal.throwIfAborted()
      if (isP2pfsError(error, 'invalid', 'unsupported')) throw error
      return await this.#run({ ...image, key: `${image.key} here` }, options, task)
    }
  }

  async #run(
    { key, reference, manifestDigest }: ImportKey,
    { signal, onProgress, onLayer, peer, urgency = new Urgency(true) }: WaitOptions,
    task: ImportTask,
  ): Promise<FoundRootfs> {
    signal.throwIfAborted()
    if (onLayer !== undefined && !this.#running.has(key)) this.#checkForPeers(peer)
    const running = this.#running.get(key) ?? {
      reference,
      manifestDigest,
      doneBytes: 0,
      totalBytes: 0,
      layers: [],
      waiters: new Set<Waiter>(),
      urgency: new Urgency(false),
      begunFor: onLayer === undefined ? undefined : (peer ?? ''),
    }
    this.#running.set(key, running)
    this.#location?.hold(manifestDigest, holds.much, 'now')
    const waiter = { onProgress, onLayer, layersTold: 0 }
    running.waiters.add(waiter)
    running.urgency.follow(urgency)
    tellLayers(running)
    try {
      return await this.#flights.run(
        key,
        signal,
        async (signal) =>
          await this.#count(
            signal,
            task({
              signal,
              urgency: running.urgency,
              onProgress: (progress) => tellProgress(running, progress),
              onLayer: (diffId) => {
                running.layers.push(diffId)
                tellLayers(running)
              },
            }),
          ),
      )
    } finally {
      running.waiters.delete(waiter)
      // The flight ends with its last waiter: a later run of the key is another import.
      if (running.waiters.size === 0 && this.#running.get(key) === running) {
        this.#running.delete(key)
        if (!this.has(manifestDigest)) this.#location?.release(manifestDigest)
      }
    }
  }

  async #count(signal: AbortSignal, importing: Promise<FoundRootfs>): Promise<FoundRootfs> {
    try {
      const found = await importing
      this.ended.imported++
      return found
    } catch (error) {
      this.ended[signal.aborted ? 'aborted' : 'failed']++
      throw error
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

  /** @throws busy where one more import for peers, begun for this one, is too many */
  #checkForPeers(peer: string | undefined): void {
    const { importsAtOnce, importsAtOncePerPeer } = this.#limits
    const running = [...this.#running.values()]
    if (running.filter(({ waiters }) => peersAmong(waiters).length > 0).length >= importsAtOnce)
      throw new P2pfsError('busy', `this host runs ${importsAtOnce} imports for peers already`)
    if (peer !== undefined && running.filter(({ begunFor }) => begunFor === peer).length >= importsAtOncePerPeer)
      throw new P2pfsError('busy', `this host runs ${importsAtOncePerPeer} imports for the peer already`)
  }
}

function tellProgress(running: Running, progress: ByteProgress): void {
  Object.assign(running, progress)
  for (const { onProgress } of running.waiters) onProgress?.(progress)
}

function tellLayers({ layers, waiters }: Running): void {
  for (const peer of peersAmong(waiters).slice(0, maxLayerTakers)) {
    while (peer.layersTold < layers.length) peer.onLayer?.(layers[peer.layersTold++]!)
  }
}

function peersAmong(waiters: Set<Waiter>): Waiter[] {
  return [...waiters].filter(({ onLayer }) => onLayer !== undefined)
}

/** @param caller the key of the caller whose credentials it is imported with: it may fail where another's would not */
export function importOf(name: ImageName, manifestDigest: Digest, caller = ''): ImportKey {
  return { key: `${caller} ${manifestDigest} ${imageKey(name)}`, reference: name.reference, manifestDigest }
}
