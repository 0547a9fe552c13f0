import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import type { Stream } from '@libp2p/interface'
import { encodeBootProfile } from '../../../protocol/boot-profile.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { encodeImageRecord } from '../../../protocol/image-record.ts'
import {
  encodeObjectAnswer,
  encodeObjectComing,
  maxLayerIndexBytes,
  maxObjectBytes,
  parseObjectRequest,
  type ObjectRequest,
} from '../../../protocol/messages/object.ts'
import { encodeRegistryWord, type RegistryWord } from '../../../protocol/messages/registry-word.ts'
import type { Bandwidth } from '../../base/bandwidth.ts'
import type { Log } from '../../base/log.ts'
import { Semaphore } from '../../base/semaphore.ts'
import { orAbort } from '../../base/single-flight.ts'
import { Urgency } from '../../base/urgency.ts'
import type { ByteBudget } from '../byte-budget.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Peer } from '../peer.ts'
import { SourcePace } from '../source-pace.ts'
import type { ServedData } from '../served-data.ts'

const compress = promisify(zstdCompress)

/** Whether objects of a kind may be so large that few are looked up at once. */
const isLarge: Record<ObjectRequest['kind'], boolean> = {
  image: false,
  import: false,
  profile: false,
  blob: false,
  rootfs: true,
  layer: true,
  map: true,
}

export interface ObjectServerParts {
  served: Pick<
    ServedData,
    | 'imageRecord'
    | 'rootfsManifest'
    | 'layerIndex'
    | 'blobMap'
    | 'sharedBlob'
    | 'bootProfile'
    | 'isImporting'
    | 'registryWord'
  >
  /** Answers that peers have not taken yet. */
  unsent: ByteBudget
  /** A limit on what is given to peers; nothing is counted where it is not given. */
  upload?: Pick<Bandwidth, 'take'>
  log: Log
}

/** Answers requests for objects. Those of one peer, and those of all, wait for their turn. */
export class ObjectServer {
  readonly #parts: ObjectServerParts
  readonly #pace = new SourcePace(limits.objects)
  readonly #lookups = new Semaphore(limits.objects.lookupsInAll)
  readonly #lookupsOfPeer = new WeakMap<Peer, Semaphore>()

  constructor(parts: ObjectServerParts) {
    this.#parts = parts
  }

  /**
   * Answers the one request of a stream.
   * @throws invalid where the peer breaks the protocol; timeout where it does not take the answer; unavailable where the
   *   stream breaks
   */
  async serve(stream: Stream, peer: Peer): Promise<void> {
    const frames = readFrames(stream, limits.objects.requestBytes)
    const { done, value } = await frames.next()
    if (done === true) return
    const request = parseObjectRequest(value)
    const ended = new AbortController()
    const onClose = (): void => ended.abort(new P2pfsError('closed', 'stream ended'))
    stream.addEventListener('close', onClose, { once: true })
    try {
      await this.#pace.wait(peer, { signal: ended.signal })
      await this.#answer(stream, peer, request, ended.signal)
    } finally {
      stream.removeEventListener('close', onClose)
      await frames.return(undefined)
    }
  }

  async #answer(stream: Stream, peer: Peer, request: ObjectRequest, signal: AbortSignal): Promise<void> {
    const { unsent, upload } = this.#parts
    if (request.kind === 'blob' && this.#parts.served.sharedBlob(request.digest) !== undefined)
      await writeFrame(stream, [encodeObjectComing()], { signal })
    const object = await this.#lookUp(peer, request, signal)
    const answer = encodeObjectAnswer(object)
    // A mount may wait for it: it goes before chunks that nobody waits for.
    await upload?.take(answer.length, { signal, urgency: new Urgency(true) })
    await unsent.run({ peer: peer.id, bytes: answer.length, signal }, async () => await send(stream, answer, signal))
  }

  async #lookUp(peer: Peer, request: ObjectRequest, signal: AbortSignal): Promise<Uint8Array | undefined> {
    // Small ones, which are asked for with a short time limit, do not wait for large ones.
    if (!isLarge[request.kind]) return await orAbort(this.#find(request), signal)
    let ofPeer = this.#lookupsOfPeer.get(peer)
    if (ofPeer === undefined) {
      ofPeer = new Semaphore(limits.objects.lookupsPerPeer)
      this.#lookupsOfPeer.set(peer, ofPeer)
    }
    return await ofPeer.run(async () => {
      signal.throwIfAborted()
      return await this.#lookups.run(async () => {
        signal.throwIfAborted()
        return await this.#find(request)
      })
    })
  }

  /** Finds an object. One that is damaged is not the asker's fault: he is told that it is not here. */
  async #find(request: ObjectRequest): Promise<Uint8Array | undefined> {
    const { served, log } = this.#parts
    try {
      const object = await find(request, served)
      if (object === undefined || object.length < maxObjectBytes) return object
      log.warn('object is too large to be sent to a peer', { kind: request.kind, sizeBytes: object.length })
    } catch (error) {
      log.error('object for a peer cannot be read', { error, kind: request.kind })
    }
    return undefined
  }
}

/** Sends the answer, and resets the stream where the peer does not take it. */
async function send(stream: Stream, answer: Uint8Array, signal: AbortSignal): Promise<void> {
  const timeoutMs = limits.unread.objectMs
  const late = new P2pfsError('timeout', 'peer does not take an object', { timeoutMs })
  const timer = setTimeout(() => stream.abort(late), timeoutMs)
  try {
    await writeFrame(stream, [answer], { signal })
    await stream.close({ signal })
  } finally {
    clearTimeout(timer)
  }
}

const encodeWord = (word: RegistryWord | undefined): Uint8Array | undefined => word && encodeRegistryWord(word)

async function find(request: ObjectRequest, served: ObjectServerParts['served']): Promise<Uint8Array | undefined> {
  switch (request.kind) {
    case 'image': {
      const record = await served.imageRecord(request)
      return record === undefined ? undefined : encodeImageRecord(record)
    }
    case 'rootfs':
      return await served.rootfsManifest(request.digest)
    case 'map':
      return await served.blobMap(request.digest)
    case 'blob':
      // The reader on this host is told why it cannot be read.
      return await served.sharedBlob(request.digest)?.catch(() => undefined)
    case 'profile': {
      const profile = await served.bootProfile(request)
      return profile === undefined ? undefined : encodeBootProfile(profile)
    }
    case 'import':
      if (served.isImporting(request.digest)) return new Uint8Array(0)
      return encodeWord(served.registryWord(request.digest))
    case 'layer': {
      const bytes = await served.layerIndex(request.diffId)
      return bytes === undefined || bytes.length > maxLayerIndexBytes ? undefined : await compress(bytes)
    }
  }
}
