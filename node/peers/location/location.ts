import type { Libp2p, Stream } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { holds, maxMembersPerKey, type Holds } from '../../../protocol/messages/location.ts'
import { systemClock, type Clock } from '../../base/clock.ts'
import { limits } from '../limits.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import { Questions, type Found } from './questions.ts'
import { Registrar, type Urgency } from './registrar.ts'
import { answer, LocationServer } from './server.ts'
import { TrackedKeys } from './tracked-keys.ts'
import { TrackerClient } from './tracker-client.ts'
import { TrackerMap, type Trackers } from './tracker-map.ts'

/** The roster's changes are gathered for so long (ms): many join at once. */
const rosterMs = 100

export interface LocationParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'roster' | 'reach' | 'ban'>
  /** Aborts when this host leaves. */
  signal: AbortSignal
  clock?: Clock
  /** From 0 to less than 1. */
  random?: () => number
}

/**
 * Finds the holders of keys in a region in which not all members are connected. A key is the id of a segment or the
 * digest of an object. Each has three members as its trackers: hosts tell them what they hold, and ask them who else
 * does. In a small region nobody is told or asked: the swarm of every key is all members.
 */
export class Location {
  readonly #parts: LocationParts
  readonly #fullMesh: number
  readonly #map: TrackerMap
  readonly #keys: TrackedKeys
  readonly #server: LocationServer
  readonly #questions: Questions
  readonly #registrar: Registrar
  readonly #listeners = new Set<(isSmall: boolean) => void>()
  readonly #endRoster: () => void
  #cancelUpdate: (() => void) | undefined
  #wasSmall: boolean
  #isStarted = false

  /**
   * @param options `fullMesh`: members of the largest region in which all are connected to all; `known`: the trackers
   *   of the members that the roster has from the begin
   */
  constructor(
    parts: LocationParts,
    { fullMesh = limits.roster.fullMesh, known }: { fullMesh?: number | undefined; known?: Trackers | undefined } = {},
  ) {
    const { host, membership, signal, clock = systemClock, random = Math.random } = parts
    this.#parts = parts
    this.#fullMesh = fullMesh
    this.#map = new TrackerMap(membership.roster, known)
    this.#keys = new TrackedKeys({ now: clock.now, random })
    this.#server = new LocationServer({ keys: this.#keys })
    const remote = new TrackerClient({ host, membership, clock })
    const own = membership.roster.own
    // This host may be a tracker itself.
    const client: Pick<TrackerClient, 'ask'> = {
      ask: async (tracker, request, options) =>
        tracker === own ? answer(this.#keys, own, request) : await remote.ask(tracker, request, options),
    }
    this.#questions = new Questions({ client, trackersOf: (key) => this.trackersOf(key), clock, signal })
    this.#registrar = new Registrar({ trackers: this.#map, client, clock, random, signal })
    this.#wasSmall = this.isSmall
    this.#endRoster = membership.roster.onChange(() => {
      this.#cancelUpdate ??= clock.after(rosterMs, () => this.#update())
    })
  }

  /** Whether all members are connected to all, so that trackers are of no use. */
  get isSmall(): boolean {
    return this.#parts.membership.roster.size <= this.#fullMesh
  }

  /** Registrations that this host keeps for others, and keys of its own. */
  get sizes(): { registrations: number; own: number } {
    return { registrations: this.#keys.size, own: this.#registrar.size }
  }

  /** The members that track the key, this host perhaps among them, in the order in which all ask them; at most three. */
  trackersOf(key: Digest): string[] {
    return this.#map.trackersOf(key)
  }

  /** Calls the listener when the region comes to be small, or large. */
  onScale(listener: (isSmall: boolean) => void): void {
    this.#listeners.add(listener)
  }

  /** This host holds the key, which trackers are told in a large region. */
  hold(key: Digest, said: Holds, urgency: Urgency): void {
    this.#registrar.say(key, said, urgency)
  }

  /** This host no longer holds the key. */
  release(key: Digest): void {
    this.#registrar.say(key, holds.nothing, 'soon')
  }

  /**
   * Asks the trackers of the key who holds it. The question repeats what this host has said of the key, so the trackers
   * know it at once.
   * @param options `wanted`: members, at most 32; `order`: another number brings others
   * @returns members of the roster only; nobody is asked in a small region
   * @throws the signal's reason
   */
  async find(
    key: Digest,
    { wanted, order = 0, signal }: { wanted: number; order?: number; signal: AbortSignal },
  ): Promise<Found> {
    if (this.isSmall) return { members: [], isAnswered: false }
    const { roster } = this.#parts.membership
    const said = this.#registrar.said(key)
    if (said !== holds.unsaid) this.#registrar.repeat(key, 'soon')
    const found = await this.#questions.find(key, said, {
      wanted: Math.min(wanted, maxMembersPerKey),
      order,
      signal,
    })
    const members = found.members.filter((id) => id !== roster.own && roster.has(id))
    return { ...found, members }
  }

  /** Members that hold the key as they say, of those that this host knows as a tracker: see {@link TrackedKeys.holders}. */
  holders(key: Digest, options: { asker: string; order: number }): string[] {
    return this.#keys.holders(key, options)
  }

  /** Serves a member, as a tracker. @throws what {@link LocationServer.serve} does */
  async serve(stream: Stream, peer: Peer): Promise<void> {
    await this.#server.serve(stream, peer, { signal: this.#parts.signal })
  }

  /** Begins to tell trackers, in a large region. */
  start(): void {
    this.#isStarted = true
    if (!this.isSmall) this.#registrar.start()
  }

  stop(): void {
    this.#isStarted = false
    this.#endRoster()
    this.#cancelUpdate?.()
    this.#registrar.stop()
  }

  #update(): void {
    this.#cancelUpdate = undefined
    const changes = this.#map.changes()
    for (const id of changes.gone) this.#keys.forget(id)
    const { isSmall } = this
    if (isSmall === this.#wasSmall) return this.#registrar.changed(changes)
    this.#wasSmall = isSmall
    if (isSmall) this.#registrar.stop()
    else if (this.#isStarted) this.#registrar.start()
    for (const listener of this.#listeners) listener(isSmall)
  }
}
