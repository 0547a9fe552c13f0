import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import type { Connection, Libp2p, PrivateKey, Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { silentLog } from '../../node/base/log.ts'
import { readFrames, writeFrame } from '../../node/peers/frames.ts'
import { RegionGate } from '../../node/peers/admission/region-gate.ts'
import { signMemberRecord, type SignedMemberRecord } from '../../protocol/member-record.ts'
import { regionSecret } from '../../node/peers/admission/region-keys.ts'
import { createPeerHost } from '../../node/peers/peer-host.ts'
import { Bitmap } from '../../protocol/bitmap.ts'
import { digestFromBytes, type Digest } from '../../protocol/digest.ts'
import {
  chunkProtocol,
  encodeAnswerHeader,
  encodeWants,
  maxWantMessageBytes,
  maxWantsPerMessage,
  parseWants,
} from '../../protocol/messages/chunk.ts'
import { encodeImportAnswer, importProtocol, maxImportRequestBytes } from '../../protocol/messages/import.ts'
import {
  encodeObjectAnswer,
  encodeObjectRequest,
  maxObjectRequestBytes,
  objectProtocol,
  parseObjectRequest,
} from '../../protocol/messages/object.ts'
import {
  encodeRegionMessage,
  haveMessages,
  haveParts,
  maxRegionMessageBytes,
  maxTablesPerQuery,
  parseRegionMessage,
  regionProtocol,
  type RegionMessage,
} from '../../protocol/messages/region.ts'
import { labRegionKey } from '../hosts/node-process.ts'
import type { Forger } from './forger.ts'
import type { Flood, MemberCounts, MemberOrders } from './member-orders.ts'

/** Pause between two pieces of what he drips, and their length: 1 KB/s. */
const drip = { ms: 1000, bytes: 1000 } as const
/** Messages of a flood between two pauses, so that this process can do other things too. */
const floodBurst = 64

/** The knowledge that all identities share. */
export interface Knowledge {
  /** Chunks of each segment that somebody has spoken of. */
  readonly segmentCounts: Map<Digest, number>
  readonly counts: MemberCounts
  readonly forger: Forger
}

/** One identity of a bad member. It passes the gate like everybody, and then does as it was told. */
export class BadMember {
  readonly #host: Libp2p
  readonly #key: PrivateKey
  readonly #orders: MemberOrders
  readonly #knowledge: Knowledge
  readonly #regionStreams = new Map<Connection, Stream>()
  /** Segments that targets have asked for, and that are claimed when their size is known. */
  readonly #asked = new Set<Digest>()
  readonly #queried = new Set<Digest>()

  private constructor(host: Libp2p, key: PrivateKey, orders: MemberOrders, knowledge: Knowledge) {
    this.#host = host
    this.#key = key
    this.#orders = orders
    this.#knowledge = knowledge
  }

  static async start(orders: MemberOrders, knowledge: Knowledge): Promise<BadMember> {
    const privateKey = await generateKeyPair('Ed25519')
    const gate = new RegionGate({ log: silentLog }, [regionSecret(labRegionKey(orders.region), orders.region)])
    const host = await createPeerHost({ privateKey, gate }, { listen: [], isBarred: () => false })
    const member = new BadMember(host, privateKey, orders, knowledge)
    const serve =
      (answer: (stream: Stream, connection: Connection) => Promise<unknown>) =>
      async (stream: Stream, connection: Connection): Promise<void> => {
        await answer(stream, connection).catch(() => undefined)
      }
    await host.handle(
      regionProtocol,
      serve(async (stream, connection) => await member.#hear(stream, connection)),
    )
    await host.handle(
      chunkProtocol,
      serve(async (stream) => await member.#answerWants(stream)),
    )
    await host.handle(
      objectProtocol,
      serve(async (stream) => await member.#answerObject(stream)),
    )
    await host.handle(
      importProtocol,
      serve(async (stream) => await member.#answerImport(stream)),
    )
    await host.start()
    for (const target of orders.targets) await member.#join(target)
    return member
  }

  get isConnected(): boolean {
    return this.#host.getConnections().length > 0
  }

  /** Begins to flood all that he is connected to. */
  flood(): void {
    for (const [connection, stream] of this.#regionStreams)
      for (const flood of this.#orders.floods) void this.#flood(flood, connection, stream).catch(() => undefined)
  }

  /** Learns which chunks there are, for requests that take work. */
  async learnChunks(reference: string): Promise<void> {
    await this.#knowledge.forger.learnChunks({ reference, platform: 'linux/amd64', format: 'ext4' }, this.#host)
  }

  async #join(target: string): Promise<void> {
    try {
      const connection = await this.#host.dial(multiaddr(target))
      const stream = await connection.newStream(regionProtocol)
      this.#regionStreams.set(connection, stream)
      await this.#say(stream, { type: 'hello', region: this.#orders.region, name: 'a friend', addresses: [] })
      // Each is newer than the last, and leads elsewhere.
      const records = this.#orders.hints.map((address, i) => this.#record(this.#key, [address], Date.now() + i))
      await this.#say(stream, { type: 'news', records: await Promise.all(records), suspects: [] })
    } catch {
      // The target has had enough of him.
    }
  }

  async #record(key: PrivateKey, addresses: string[], sequence: number): Promise<SignedMemberRecord> {
    const peer = peerIdFromPrivateKey(key).toString()
    const record = { region: this.#orders.region, peer, name: 'a friend', addresses, sequence, hasLeft: false }
    return await signMemberRecord(record, async (bytes) => await key.sign(bytes))
  }

  async #say(stream: Stream, message: RegionMessage): Promise<void> {
    await writeFrame(stream, [encodeRegionMessage(message)])
  }

  async #hear(stream: Stream, connection: Connection): Promise<void> {
    for await (const bytes of readFrames(stream, maxRegionMessageBytes)) {
      const message = parseRegionMessage(bytes)
      if (message.type === 'query') {
        this.#knowledge.counts.queries++
        await this.#hearQuery(message.tables, connection)
      } else if (message.type === 'have') {
        for (const { table, count } of message.tables) this.#knowledge.segmentCounts.set(table, count)
        await this.#claim()
      }
    }
  }

  async #hearQuery(tables: readonly Digest[], connection: Connection): Promise<void> {
    const asker = this.#regionStreams.get(connection)
    if (this.#orders.claimsAll) {
      for (const table of tables) this.#asked.add(table)
      await this.#claim()
    }
    if (asker !== undefined) await this.#say(asker, { type: 'answered' })
    const unknown = tables.filter((table) => !this.#queried.has(table)).slice(0, maxTablesPerQuery)
    for (const table of unknown) this.#queried.add(table)
    if (unknown.length === 0) return
    for (const stream of this.#regionStreams.values()) await this.#say(stream, { type: 'query', tables: unknown })
  }

  /** Says that he holds all chunks of the segments that were asked for, as far as he knows how many they are. */
  async #claim(): Promise<void> {
    const parts = [...this.#asked].flatMap((table) => {
      const count = this.#knowledge.segmentCounts.get(table)
      if (count === undefined) return []
      this.#asked.delete(table)
      const all = new Bitmap(count)
      for (let i = 0; i < count; i++) all.set(i)
      this.#knowledge.counts.claims++
      return haveParts(table, all)
    })
    for (const message of haveMessages(parts))
      for (const stream of this.#regionStreams.values()) await this.#say(stream, message)
  }

  async #answerWants(stream: Stream): Promise<void> {
    for await (const message of readFrames(stream, maxWantMessageBytes)) {
      for (const { id } of parseWants(message)) {
        this.#knowledge.counts.wants++
        switch (this.#orders.chunks) {
          case 'silent':
            break
          case 'missing':
            await writeFrame(stream, [encodeAnswerHeader(id, 'missing')])
            break
          case 'wrong':
            await writeFrame(stream, [encodeAnswerHeader(id, 'chunk'), randomBytes(64 * 1024)])
            break
          case 'short':
            await writeFrame(stream, [encodeAnswerHeader(id, 'chunk'), randomBytes(10)])
            break
          case 'drip':
            await this.#drip(stream, Buffer.concat([encodeAnswerHeader(id, 'chunk'), randomBytes(64 * 1024)]))
        }
      }
    }
  }

  async #answerObject(stream: Stream): Promise<void> {
    for await (const message of readFrames(stream, maxObjectRequestBytes)) {
      this.#knowledge.counts.objectRequests++
      const request = parseObjectRequest(message)
      switch (this.#orders.objects) {
        case 'silent':
          return
        case 'missing':
          return await writeFrame(stream, [encodeObjectAnswer(undefined)])
        case 'garbage':
          return await writeFrame(stream, [encodeObjectAnswer(randomBytes(1000))])
        case 'oversize':
          stream.send(Buffer.from('ffffffff7f', 'hex'))
          return
        case 'drip':
          return await this.#drip(stream, encodeObjectAnswer(randomBytes(1 << 20)))
        case 'lie':
          return await writeFrame(stream, [
            encodeObjectAnswer(await this.#knowledge.forger.answer(request, this.#host, this.#key)),
          ])
      }
    }
  }

  async #answerImport(stream: Stream): Promise<void> {
    for await (const message of readFrames(stream, maxImportRequestBytes)) {
      void message
      this.#knowledge.counts.importRequests++
      switch (this.#orders.imports) {
        case 'silent':
          return
        case 'refuse':
          return await writeFrame(stream, [encodeImportAnswer({ type: 'refused', code: 'busy' })])
        case 'garbage':
          return await writeFrame(stream, [randomBytes(1000)])
        case 'stall':
          for (;;) {
            await writeFrame(stream, [
              encodeImportAnswer({ type: 'progress', doneBytes: 0, totalBytes: 1e9, layers: [] }),
            ])
            await sleep(500)
          }
      }
    }
  }

  /** Sends a message whose length is true, at 1 KB/s. */
  async #drip(stream: Stream, message: Uint8Array): Promise<void> {
    const prefix: number[] = []
    for (let rest = message.length; ; rest >>>= 7) {
      prefix.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
      if (rest <= 0x7f) break
    }
    stream.send(Uint8Array.from(prefix))
    for (let sent = 0; sent < message.length; sent += drip.bytes) {
      stream.send(message.subarray(sent, sent + drip.bytes))
      await sleep(drip.ms)
    }
  }

  async #flood(flood: Flood, connection: Connection, region: Stream): Promise<void> {
    const { counts } = this.#knowledge
    const chunks = flood === 'wants' || flood === 'unread' ? await connection.newStream(chunkProtocol) : undefined
    if (flood === 'unread') chunks?.pause()
    const randomDigest = (): Digest => digestFromBytes(randomBytes(32), 0)
    for (let id = 0; connection.status === 'open';) {
      for (let i = 0; i < floodBurst; i++, id++) {
        counts.flooded++
        switch (flood) {
          case 'members':
            await this.#say(region, {
              type: 'news',
              records: await Promise.all(
                Array.from({ length: 20 }, async () => {
                  const key = await generateKeyPair('Ed25519')
                  return await this.#record(key, [`/ip4/10.99.200.${randomBytes(1)[0]}/tcp/9`], Date.now())
                }),
              ),
              suspects: [],
            })
            break
          case 'haves': {
            const bits = new Uint8Array(32 * 1024).fill(255)
            await this.#say(region, {
              type: 'have',
              tables: [{ table: randomDigest(), count: 262_144, first: 0, bits }],
            })
            break
          }
          case 'queries':
            await this.#say(region, { type: 'query', tables: Array.from({ length: 1024 }, randomDigest) })
            break
          case 'objects': {
            const stream = await connection.newStream(objectProtocol)
            await writeFrame(stream, [encodeObjectRequest({ kind: 'layer', diffId: randomDigest() })])
            break
          }
          case 'wants':
          case 'unread': {
            const known = [...this.#knowledge.forger.chunks]
            const wants = Array.from({ length: maxWantsPerMessage }, (_, n) => ({
              id: (id * maxWantsPerMessage + n) >>> 0,
              kind: 'held' as const,
              priority: 'demand' as const,
              waits: false,
              depth: 0,
              digest: known.length === 0 ? randomDigest() : known[n % known.length]!,
            }))
            await writeFrame(chunks!, [encodeWants(wants)])
          }
        }
      }
      await sleep(1)
    }
  }
}
