import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { AbortOptions, ConnectionProtector, MessageStream } from '@libp2p/interface'
import { byteStream } from '@libp2p/utils'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import { limits } from '../limits.ts'
import { AdmittedConnections } from './admitted-connections.ts'
import { PendingHandshakes } from './pending-handshakes.ts'
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
import { sourceOf } from './source.ts'

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
 * proof, so a stranger learns nothing, and costs a socket and one HMAC. libp2p's own `pnet` would encrypt everything a
 * second time, in JavaScript, and leaves the other side unproved until noise fails.
 */
export class RegionGate implements ConnectionProtector {
  readonly #secrets: readonly RegionSecret[]
  readonly #guestSecrets: readonly RegionSecret[]
  /** Prologues of those who have proved no more than that they are guests. */
  readonly #guestPrologues = new WeakSet<Uint8Array>()
  readonly #log: Log
  readonly #now: () => number
  readonly #prologues = new WeakMap<MessageStream, Uint8Array>()
  readonly #pending: PendingHandshakes
  readonly #admitted = new AdmittedConnections(limits.connections)
  #turnedAway = 0
  #loggedTurnedAway = 0
  #loggedAtMs = -Infinity

  /**
   * @param secrets the first one is proved to those that this host dials; any is accepted from those that dial
   * @param guestSecrets accepted from those that dial, too: what they prove is that they are guests
   */
  constructor(
    { log, now = () => performance.now() }: { log: Log; now?: () => number },
    secrets: readonly RegionSecret[],
    guestSecrets: readonly RegionSecret[] = [],
  ) {
    this.#log = log
    this.#now = now
    this.#secrets = secrets
    this.#guestSecrets = guestSecrets
    this.#pending = new PendingHandshakes({ now })
  }

  get strangers(): StrangerCounts {
    return { turnedAway: this.#turnedAway, dropped: this.#pending.dropped }
  }

  /**
   * Has the other side of a socket that was accepted prove the secret. Works on the socket itself: what libp2p makes of
   * a connection takes five times as long, and twice the memory.
   * @param onProof is called with the prologue of the noise handshake, unless the socket is closed
   */
  accept(socket: Socket, onProof: (prologue: Uint8Array) => void): void {
    const source = sourceOf(socket.remoteAddress ?? '')
    const leave = this.#pending.add({ source, drop: () => socket.resetAndDestroy() })
    const listener = randomBytes(nonceBytes)
    const onError = (): void => undefined
    const onStranger = (): void => {
      leave()
      this.#countStranger(source)
    }
    const onReadable = (): void => {
      const answer = socket.read(nonceBytes + proofBytes) as Buffer | null
      if (answer === null) return
      const nonces = { listener, dialler: answer.subarray(0, nonceBytes) }
      const proof = answer.subarray(nonceBytes)
      const isProved = (candidate: RegionSecret): boolean => isSameProof(diallerProof(candidate, nonces), proof)
      const asMember = this.#secrets.find(isProved)
      const secret = asMember ?? this.#guestSecrets.find(isProved)
      // A host that has the secret sends nothing more before it has seen the proof of this host.
      if (secret === undefined || socket.readableLength > 0) return void socket.resetAndDestroy()
      leave()
      socket.off('readable', onReadable).off('close', onStranger)
      const leaveSource = this.#admitted.add(source)
      if (leaveSource === undefined) {
        this.#log.debug('connection is refused: its source has too many already', { source })
        return void socket.resetAndDestroy()
      }
      socket.once('close', leaveSource)
      socket.write(listenerProof(secret, nonces))
      const prologue = noisePrologue(secret, nonces)
      if (asMember === undefined) this.#guestPrologues.add(prologue)
      onProof(prologue)
    }
    socket.on('error', onError).once('close', onStranger).on('readable', onReadable)
    socket.write(listener)
  }

  /** Binds the noise handshake on an accepted connection to its proofs. */
  adopt(connection: MessageStream, prologue: Uint8Array): void {
    this.#prologues.set(connection, prologue)
  }

  /** Whether the other side of an accepted connection has proved that it is a guest, and not that it is a member. */
  isGuest(connection: MessageStream): boolean {
    return this.#guestPrologues.has(this.prologueOf(connection))
  }

  /** The prologue of the noise handshake on a connection that has passed. @throws closed where it has not */
  prologueOf(connection: MessageStream): Uint8Array {
    const prologue = this.#prologues.get(connection)
    if (prologue === undefined) throw new P2pfsError('closed', 'connection has not passed the region gate')
    return prologue
  }

  /**
   * Proves the secret to the other side of a connection that this host has dialled, and has it prove it too.
   * @throws denied where it does not; closed for an accepted connection that has not passed
   */
  async protect(connection: MessageStream, { signal }: AbortOptions = {}): Promise<MessageStream> {
    if (connection.direction === 'inbound') {
      this.prologueOf(connection)
      return connection
    }
    const timeout = AbortSignal.timeout(limits.handshakes.timeoutMs)
    const bytes = byteStream(connection, { maxBufferSize: nonceBytes + proofBytes })
    try {
      const { secret, nonces } = await this.#prove(
        bytes,
        signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      )
      this.#prologues.set(connection, noisePrologue(secret, nonces))
      return connection
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

  async #prove(
    bytes: ReturnType<typeof byteStream>,
    signal: AbortSignal,
  ): Promise<{ secret: RegionSecret; nonces: Nonces }> {
    const [secret] = this.#secrets
    if (secret === undefined) throw new TypeError('a region has at least one secret')
    const nonces = {
      listener: (await bytes.read({ bytes: nonceBytes, signal })).subarray(),
      dialler: randomBytes(nonceBytes),
    }
    await bytes.write(Buffer.concat([nonces.dialler, diallerProof(secret, nonces)]), { signal })
    const proof = (await bytes.read({ bytes: proofBytes, signal })).subarray()
    if (!isSameProof(proof, listenerProof(secret, nonces)))
      throw new P2pfsError('denied', 'the other side does not prove the region key')
    return { secret, nonces }
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
}
