import { randomBytes } from 'node:crypto'
import type { AbortOptions, ConnectionProtector, MessageStream, MultiaddrConnection } from '@libp2p/interface'
import { byteStream } from '@libp2p/utils'
import type { Multiaddr } from '@multiformats/multiaddr'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import { AdmittedConnections } from './admitted-connections.ts'
import { PendingHandshakes, sourceOf } from './pending-handshakes.ts'
import {
  diallerProof,
  isSameProof,
  listenerProof,
  noisePrologue,
  nonceBytes,
  proofBytes,
  type Nonces,
} from './proof.ts'
import type { RegionSecret } from './region-keys.ts'

/** How long the other side may take for its proof (ms): two round trips, and a busy machine. */
const proofTimeoutMs = 3_000
/** Strangers are logged at most so often (ms): they must not fill a disk. */
const strangerLogIntervalMs = 60_000

/** Strangers that were turned away since the daemon started. */
export interface StrangerCounts {
  /** Connections whose other side did not prove the region key. */
  turnedAway: number
  /** Those of them that were dropped before their time, for newer ones. */
  dropped: number
}

/**
 * The first thing on every connection, before libp2p says anything: both sides prove that they know a secret of the
 * region. The one that accepted the connection sends 32 random bytes and nothing more until it has seen the other's
 * proof, so a stranger learns nothing, and costs one HMAC at most. libp2p's own `pnet` would encrypt everything a second
 * time, in JavaScript, and leaves the other side unproved until noise fails.
 */
export class RegionGate implements ConnectionProtector {
  readonly #secrets: readonly RegionSecret[]
  readonly #log: Log
  readonly #now: () => number
  readonly #prologues = new WeakMap<MessageStream, Uint8Array>()
  readonly #pending = new PendingHandshakes()
  readonly #admitted = new AdmittedConnections()

  #turnedAway = 0
  #loggedTurnedAway = 0
  #loggedAtMs = -Infinity

  /** @param secrets the first one is proved to those that this host dials; any is accepted from those that dial */
  constructor(
    { log, now = () => performance.now() }: { log: Log; now?: () => number },
    secrets: readonly RegionSecret[],
  ) {
    this.#log = log
    this.#now = now
    this.#secrets = secrets
  }

  get strangers(): StrangerCounts {
    return { turnedAway: this.#turnedAway, dropped: this.#pending.dropped }
  }

  /** The prologue of the noise handshake on a connection that has passed. @throws closed where it has not */
  prologueOf(connection: MessageStream): Uint8Array {
    const prologue = this.#prologues.get(connection)
    if (prologue === undefined) throw new P2pfsError('closed', 'connection has not passed the region gate')
    return prologue
  }

  /** @throws denied where the other side does not prove a secret of the region; timeout */
  async protect(connection: MessageStream, { signal }: AbortOptions = {}): Promise<MessageStream> {
    const timeout = AbortSignal.timeout(proofTimeoutMs)
    const timed = signal === undefined ? timeout : AbortSignal.any([signal, timeout])
    if (connection.direction === 'outbound') await this.#dial(connection, timed)
    else await this.#accept(connection, timed)
    return connection
  }

  async #accept(connection: MessageStream, signal: AbortSignal): Promise<void> {
    const source = sourceOf(addressOf((connection as MultiaddrConnection).remoteAddr))
    const leave = this.#pending.add({
      source,
      drop: () => connection.abort(new P2pfsError('closed', 'dropped for a newer connection')),
    })
    const bytes = byteStream(connection, { maxBufferSize: nonceBytes + proofBytes })
    try {
      const listener = randomBytes(nonceBytes)
      await bytes.write(listener, { signal })
      const answer = (await bytes.read({ bytes: nonceBytes + proofBytes, signal })).subarray()
      const nonces = { listener, dialler: answer.subarray(0, nonceBytes) }
      const proof = answer.subarray(nonceBytes)
      const secret = this.#secrets.find((candidate) => isSameProof(diallerProof(candidate, nonces), proof))
      if (secret === undefined) throw new P2pfsError('denied', 'a stranger has tried to connect')
      this.#admit(connection, source)
      await bytes.write(listenerProof(secret, nonces), { signal })
      this.#pass(connection, secret, nonces)
    } catch (error) {
      connection.abort(error as Error)
      if (!isP2pfsError(error, 'busy')) this.#countStranger(source)
      throw error
    } finally {
      leave()
      bytes.unwrap()
    }
  }

  async #dial(connection: MessageStream, signal: AbortSignal): Promise<void> {
    const bytes = byteStream(connection, { maxBufferSize: nonceBytes + proofBytes })
    const [secret] = this.#secrets
    if (secret === undefined) throw new TypeError('a region has at least one secret')
    try {
      const nonces = {
        listener: (await bytes.read({ bytes: nonceBytes, signal })).subarray(),
        dialler: randomBytes(nonceBytes),
      }
      await bytes.write(Buffer.concat([nonces.dialler, diallerProof(secret, nonces)]), { signal })
      const proof = (await bytes.read({ bytes: proofBytes, signal })).subarray()
      if (!isSameProof(proof, listenerProof(secret, nonces)))
        throw new P2pfsError('denied', 'the other side does not prove the region key')
      this.#pass(connection, secret, nonces)
    } catch (cause) {
      connection.abort(cause as Error)
      throw new P2pfsError(
        'denied',
        'the other side is no member of this region: it has another region key or region name, or is not p2pfs',
        { cause },
      )
    } finally {
      bytes.unwrap()
    }
  }

  #admit(connection: MessageStream, source: string): void {
    const leave = this.#admitted.add(source)
    if (leave === undefined) {
      this.#log.debug('connection is refused: its source has too many already', { source })
      throw new P2pfsError('busy', 'too many connections from one source')
    }
    connection.addEventListener('close', leave, { once: true })
  }

  #countStranger(source: string): void {
    this.#turnedAway++
    const now = this.#now()
    if (now - this.#loggedAtMs < strangerLogIntervalMs) return
    this.#log.warn('connections were turned away: the other side did not prove the region key', {
      source,
      connections: this.#turnedAway - this.#loggedTurnedAway,
    })
    this.#loggedAtMs = now
    this.#loggedTurnedAway = this.#turnedAway
  }

  #pass(connection: MessageStream, secret: RegionSecret, nonces: Nonces): void {
    this.#prologues.set(connection, noisePrologue(secret, nonces))
  }
}

function addressOf(address: Multiaddr): string {
  return address.getComponents().find(({ name }) => name === 'ip4' || name === 'ip6')?.value ?? ''
}
