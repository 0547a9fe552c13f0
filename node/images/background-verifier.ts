import { setTimeout as sleepFor } from 'node:timers/promises'
import { attest, type Signer, type Statement } from '../../protocol/attestation.ts'
import { encodeCbor } from '../../protocol/cbor.ts'
import { digestOf, digestToBytes } from '../../protocol/digest.ts'
import { isP2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import { rootfsDigest } from '../../protocol/rootfs-manifest.ts'
import type { Log } from '../base/log.ts'
import { isOnMembersWord } from '../model/belief.ts'
import type { Membership } from '../peers/membership.ts'
import { imageOf } from '../publish/belief.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import type { ImageSource } from '../registry/image-source.ts'
import { parseReference, type RegistryReference } from '../registry/reference.ts'
import type { Catalog } from '../store/catalog.ts'
import type { FalseStatements } from './false-statements.ts'
import type { LayerRebuild } from './layer-rebuild.ts'

/**
 * Hosts of a region that verify an image, on average: the registry gives so many copies more. One may be the liar, one may
 * be gone before the others ask.
 */
const verifiersPerImage = 3
/** Images that wait; one more waits for the next start of the daemon. */
const maxWaiting = 256
/**
 * How long an image waits for its turn, at random (ms): a burst of creates is over by then, and nobody knows who
 * verifies.
 */
const waitMs = { min: 60_000, max: 10 * 60_000 } as const
/** How much of the compressed layers is read at most (bytes a second): a fifteenth of a link of 1 Gbit/s. */
const bytesPerSecond = 8 * 1024 * 1024
/** An image that cannot be verified, as while its registry is away, is tried so often, each time after another wait. */
const maxTries = 3

export interface BackgroundVerifierParts {
  catalog: Pick<Catalog, 'image' | 'images' | 'putImage'>
  registry: Pick<ImageSource, 'resolve'>
  rebuild: Pick<LayerRebuild, 'of'>
  trust: Pick<IndexTrust, 'beliefIn'>
  lies: Pick<FalseStatements, 'found'>
  membership: { roster: Pick<Membership['roster'], 'size'> }
  /** Signs what this host has verified. */
  signer: Signer
  log: Log
  /** The clock (ms). */
  now?: () => number
  /** From 0 to 1. */
  random?: () => number
  sleep?: (ms: number, options: { signal: AbortSignal }) => Promise<void>
}

interface Waiting {
  record: ImageRecord
  dueAtMs: number
  tries: number
}

/**
 * Verifies rootfs that are believed on the word of members: reads all layers in the registry, one image at a time, some
 * minutes later. About three hosts of a region do it for each image. If the rootfs is right, this host signs for it too.
 * If it is not, {@link FalseStatements} follows.
 */
export class BackgroundVerifier implements AsyncDisposable {
  readonly #parts: BackgroundVerifierParts
  readonly #isEnabled: boolean
  readonly #now: () => number
  readonly #random: () => number
  readonly #sleep: NonNullable<BackgroundVerifierParts['sleep']>
  readonly #stopping = new AbortController()
  /** By the statement that is to be verified. */
  readonly #waiting = new Map<string, Waiting>()
  #isStarting = false
  #isVerifying = false
  #wake = Promise.withResolvers<void>()
  #running: Promise<void> = Promise.resolve()

  constructor(parts: BackgroundVerifierParts, { enabled }: { enabled: boolean }) {
    this.#parts = parts
    this.#isEnabled = enabled
    this.#now = parts.now ?? (() => performance.now())
    this.#random = parts.random ?? Math.random
    this.#sleep = parts.sleep ?? (async (ms, { signal }) => await sleepFor(ms, undefined, { signal, ref: false }))
  }

  /** How many images wait to be verified, or are verified now. */
  get pending(): number {
    return this.#waiting.size + (this.#isVerifying || this.#isStarting ? 1 : 0)
  }

  /** Begins with what this host has believed before. */
  start(): void {
    if (!this.#isEnabled) return
    this.#isStarting = true
    this.#running = this.#run().catch((error: unknown) => {
      if (!this.#stopping.signal.aborted)
        this.#parts.log.error('images are no longer verified in the background; restart the daemon', { error })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    this.#wake.resolve()
    await this.#running
  }

  /** Lets an image wait for its turn, if its rootfs is believed on the word of members and it is in a registry. */
  consider(record: ImageRecord): void {
    const { trust, log } = this.#parts
    const key = keyOf(record)
    if (!this.#isEnabled || this.#waiting.has(key) || parseReference(record.reference).kind !== 'registry') return
    const belief = trust.beliefIn(record)
    if (belief === undefined || !isOnMembersWord(belief)) return
    if (this.#waiting.size >= maxWaiting) {
      log.debug('image is not verified before the next start: too many wait', { image: record.reference })
      return
    }
    this.#wait(record, 0)
  }

  #wait(record: ImageRecord, tries: number): void {
    const dueAtMs = this.#now() + waitMs.min + this.#random() * (waitMs.max - waitMs.min)
    this.#waiting.set(keyOf(record), { record, dueAtMs, tries })
    this.#wake.resolve()
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    for (const record of await this.#parts.catalog.images()) this.consider(record)
    this.#isStarting = false
    for (;;) {
      signal.throwIfAborted()
      const [next] = [...this.#waiting.values()].sort((a, b) => a.dueAtMs - b.dueAtMs)
      if (next === undefined) {
        this.#wake = Promise.withResolvers()
        await this.#wake.promise
        continue
      }
      await this.#sleep(Math.max(0, next.dueAtMs - this.#now()), { signal })
      this.#waiting.delete(keyOf(next.record))
      this.#isVerifying = true
      await this.#take(next, signal)
      this.#isVerifying = false
    }
  }

  async #take({ record, tries }: Waiting, signal: AbortSignal): Promise<void> {
    const { log } = this.#parts
    const image = record.reference
    try {
      if (!(await this.#isChosen(record)) || !(await this.#isStillBelieved(record))) return
      log.info('image that was believed on the word of members is verified', { image, digest: record.rootfsDigest })
      await this.#verify(record, signal)
    } catch (error) {
      signal.throwIfAborted()
      log.warn('image that was believed on the word of members cannot be verified', { error, image })
      if (tries + 1 < maxTries && !isP2pfsError(error, 'invalid', 'unsupported')) this.#wait(record, tries + 1)
    }
  }

  /**
   * Whether this host is one of those that verify the image. It is the same whenever it is asked, in a region of one size,
   * so a daemon that starts often does not verify more. Nobody else can know it: it takes this host's key.
   */
  async #isChosen({ manifestDigest, format }: Statement): Promise<boolean> {
    const { signer, membership } = this.#parts
    const lot = await signer.sign(encodeCbor({ statement: 'p2pfs verification lot', manifest: manifestDigest, format }))
    const drawn = Buffer.from(digestToBytes(digestOf(lot))).readUIntBE(0, 6) / 2 ** 48
    return drawn < verifiersPerImage / membership.roster.size
  }

  async #isStillBelieved(record: ImageRecord): Promise<boolean> {
    const { catalog, trust } = this.#parts
    const stored = await catalog.image(record)
    if (stored === undefined || keyOf(stored) !== keyOf(record)) return false
    const belief = trust.beliefIn(stored)
    return belief !== undefined && isOnMembersWord(belief)
  }

  async #verify(record: ImageRecord, signal: AbortSignal): Promise<void> {
    const { registry, rebuild, lies } = this.#parts
    const { platform, format, manifestDigest } = record
    const reference = { ...(parseReference(record.reference) as RegistryReference), digest: manifestDigest }
    const image = await registry.resolve(reference, platform, { signal })
    const { manifest: made } = await rebuild.of(reference, image, format, { signal, bytesPerSecond })
    if (rootfsDigest(made) === record.rootfsDigest) await this.#sign(record)
    else await lies.found(record, made)
  }

  /** Signs for the rootfs in all records that name it for this image. The name statement of each record stays. */
  async #sign(verified: ImageRecord): Promise<void> {
    const { catalog, signer, log } = this.#parts
    const attestation = await attest(verified, signer)
    for (const record of await catalog.images())
      if (keyOf(record) === keyOf(verified)) await catalog.putImage({ ...record, attestation })
    log.info('rootfs is what the layers of its image make', {
      image: verified.reference,
      digest: verified.rootfsDigest,
      maker: verified.attestation.key,
    })
  }
}

function keyOf({ rootfsDigest, ...image }: Statement): string {
  return `${imageOf(image)} ${rootfsDigest}`
}
