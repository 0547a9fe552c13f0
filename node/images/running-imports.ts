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
  /** Key of the caller whose credentials it has; empty for this host and its peers. */
  caller: string
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
  /** The image that it makes, and the caller whose credentials it is made with. */
  image: string
  caller: string
  /** Ends it, when nobody is left who has these credentials. */
  ended: AbortController
  /** Whether it reads the image: one for a caller asks first whether another host does. */
  isReading: boolean
  /** It has ended: nobody may join it any more. */
  isOver: boolean
  /** Key of its flight. */
  flight: string
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
  /** Equal for imports that make the same. */
  key: string
  reference: string
  manifestDigest: Digest
  /** Key of the caller whose credentials it is imported with: it may fail where another's would not. */
  caller?: string
}

/** The callbacks by which an import tells all who wait for it, and the signal that ends it. */
export interface TaskOptions extends Required<Omit<WaitOptions, 'peer'>> {
  /** To be called where an import for a caller begins to read the image itself. */
  onReading: () => void
}
type ImportTask = (options: TaskOptions) => Promise<FoundRootfs>

/** The imports that this host runs. An image is imported once for all who want it, and all of them see its progress. */
export class RunningImports {
  readonly #flights = new SingleFlight<FoundRootfs>()
  readonly #running = new Map<string, Running>()
  #begun = 0
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
   * Runs the task, or joins a run of the same image: whoever comes here has had it described by its registry, with the
   * credentials that he has. The run is aborted when nobody waits for it any more who has the credentials that it is made with.
   * One that is made with those of another caller, or was begun for peers, whose bounds are not this host's, may fail where
   * this one would not: those who want the image here run their own then.
   * @throws busy if only peers want this import, and too many of those run already; what the task throws
   */
  async run(image: ImportKey, options: WaitOptions, task: ImportTask): Promise<FoundRootfs> {
    const { caller = '' } = image
    const own = `${caller} ${image.key}`
    const isForPeer = options.onLayer !== undefined
    const running = this.#find(own)
    const joined = running === undefined ? this.#byOthers(image.key) : own
    const isOwn = joined === undefined || (joined === own && (isForPeer || running?.begunFor === undefined))
    if (isOwn) return await this.#run(own, image, options, task)
    try {
      return await this.#run(joined, image, options, task)
    } catch (error) {
      options.signal.throwIfAborted()
      if (isP2pfsError(error, 'invalid', 'unsupported')) throw error
      return await this.#run(joined === own ? `${own} here` : own, image, options, task)
    }
  }

  /**
   * Joins, for a peer, a run of the image that is under way here, and begins none.
   * @param options `isBefore`: whether this host comes before the peer: where both are about to read the image, this one does
   * @returns undefined where there is none, or it fails
   * @throws the signal's reason
   */
  async join(
    image: ImportKey,
    { isBefore, ...options }: WaitOptions & { isBefore: boolean },
  ): Promise<FoundRootfs | undefined> {
    const joined = this.#byOthers(image.key)
    if (joined === undefined || (!isBefore && !this.#find(joined)!.isReading)) return undefined
    const never: ImportTask = async () => await Promise.reject(new P2pfsError('closed', 'the import has ended'))
    try {
      return await this.#run(joined, image, options, never)
    } catch (error) {
      options.signal.throwIfAborted()
      if (!isP2pfsError(error)) throw error
      return undefined
    }
  }

  /** An import of the image that was begun here with credentials of a caller, or of this host; not for peers. */
  #byOthers(image: string): string | undefined {
    for (const [key, running] of this.#running)
      if (running.image === image && running.begunFor === undefined && this.#find(key) !== undefined) return key
    return undefined
  }

  /** A run that has not ended, nor is about to. */
  #find(key: string): Running | undefined {
    const running = this.#running.get(key)
    return running?.isOver === true || running?.ended.signal.aborted === true ? undefined : running
  }

  async #run(
    key: string,
    { key: image, reference, manifestDigest, caller = '' }: ImportKey,
    { signal, onProgress, onLayer, peer, urgency = new Urgency(true) }: WaitOptions,
    task: ImportTask,
  ): Promise<FoundRootfs> {
    signal.throwIfAborted()
    if (onLayer !== undefined && this.#find(key) === undefined) this.#checkForPeers(peer)
    const running = this.#find(key) ?? {
      reference,
      manifestDigest,
      doneBytes: 0,
      totalBytes: 0,
      layers: [],
      waiters: new Set<Waiter>(),
      urgency: new Urgency(false),
      begunFor: onLayer === undefined ? undefined : (peer ?? ''),
      image,
      caller,
      ended: new AbortController(),
      isReading: caller === '',
      isOver: false,
      flight: `${this.#begun++} ${key}`,
    }
    this.#running.set(key, running)
    this.#location?.hold(manifestDigest, holds.much, 'now')
    const waiter = { onProgress, onLayer, layersTold: 0, caller }
    running.waiters.add(waiter)
    running.urgency.follow(urgency)
    tellLayers(running)
    try {
      return await this.#flights.run(
        running.flight,
        signal,
        async (signal) =>
          await this.#count(
            running,
            signal,
            task({
              signal: AbortSignal.any([signal, running.ended.signal]),
              urgency: running.urgency,
              onReading: () => void (running.isReading = true),
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
      if (![...running.waiters].some(({ caller }) => caller === running.caller))
        running.ended.abort(
          new P2pfsError('closed', 'nobody waits any more whose credentials the import was made with'),
        )
      // The flight ends with its last waiter: a later run of the key is another import.
      if (running.waiters.size === 0 && this.#running.get(key) === running) {
        this.#running.delete(key)
        if (!this.has(manifestDigest)) this.#location?.release(manifestDigest)
      }
    }
  }

  async #count(running: Running, signal: AbortSignal, importing: Promise<FoundRootfs>): Promise<FoundRootfs> {
    try {
      const found = await importing
      this.ended.imported++
      return found
    } catch (error) {
      this.ended[signal.aborted || running.ended.signal.aborted ? 'aborted' : 'failed']++
      throw error
    } finally {
      running.isOver = true
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

/** @param caller the key of the caller whose credentials it is imported with */
export function importOf(name: ImageName, manifestDigest: Digest, caller = ''): ImportKey {
  return { key: `${manifestDigest} ${imageKey(name)}`, reference: name.reference, manifestDigest, caller }
}
