import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { maxSharedBlobBytes } from '../../../protocol/messages/object.ts'
import type { SpanPlace } from '../../../protocol/messages/span.ts'
import { silentLog } from '../../../node/base/log.ts'
import { orAbort } from '../../../node/base/single-flight.ts'
import type { Member } from '../../../node/peers/peer.ts'
import { SpanBook } from '../../../node/peers/spans/span-book.ts'
import type { RegionObjects } from '../../../node/peers/object/region-objects.ts'
import { SharedBlobs } from '../../../node/peers/object/shared-blobs.ts'
import { settled } from '../../support/fake-clock.ts'

const { signal } = new AbortController()
const bytes = Buffer.from('a published index')
const blob = { digest: digestOf(bytes), sizeBytes: bytes.length }

/** Hosts `h0`, `h1` and so on, which have one steward. Each can do without the others where `isAlone` says so. */
class Region {
  readonly reads: string[] = []
  readonly hosts = new Map<string, SharedBlobs>()
  readonly gone = new Set<string>()
  readonly silent = new Set<string>()
  /** Those that took a member's word. */
  readonly unproved = new Set<string>()
  /** Those that were connected to, in this order. */
  readonly reached: string[] = []
  readonly registry = Promise.withResolvers<Uint8Array>()
  nowMs = 0
  readonly #book = new SpanBook({ isHere: (id) => !this.gone.has(id), now: () => this.nowMs })

  constructor(count: number) {
    for (let i = 0; i < count; i++) this.hosts.set(`h${i}`, this.#host(`h${i}`))
  }

  async get(id: string, { read = async () => await this.registry.promise, wanted = blob } = {}): Promise<Uint8Array> {
    const counted = async (): Promise<Uint8Array> => {
      this.reads.push(id)
      return await read()
    }
    return await this.hosts.get(id)!.get(wanted, counted, { signal })
  }

  #host(id: string): SharedBlobs {
    const places = new Map<Digest, SpanPlace>()
    const spans = {
      ask: async (table: Digest) => {
        places.set(table, this.#book.place(id, table, 0, places.get(table)?.member))
        await Promise.resolve()
      },
      namedPlaceOf: (table: Digest) => places.get(table),
    }
    const reach = async (peer: string): Promise<Member> => {
      this.reached.push(peer)
      if (this.gone.has(peer)) throw new P2pfsError('unavailable', 'it cannot be reached')
      return await Promise.resolve({ id: peer, standing: { isSilent: this.silent.has(peer) } } as Member)
    }
    const fetchBlob: RegionObjects['fetchBlob'] = async (digest, peer, { signal, isNamedByDigest = true }) => {
      if (!isNamedByDigest) this.unproved.add(id)
      if (this.gone.has(peer)) throw new P2pfsError('unavailable', 'it has gone')
      const found = this.hosts.get(peer)?.find(digest)
      return found && (await orAbort(found, signal))
    }
    const region = { fetchBlob }
    return new SharedBlobs({ spans, membership: { reach }, region, log: silentLog, now: () => this.nowMs })
  }
}

test('fifty hosts that need a blob at once read it once', async () => {
  const region = new Region(50)
  const got = Promise.all([...region.hosts.keys()].map(async (id) => await region.get(id)))
  await settled()
  region.registry.resolve(bytes)
  for (const blob of await got) assert.deepEqual(blob, bytes)
  assert.deepEqual(region.reads, ['h0'])
})

test('a host that needs it twice at once asks once', async () => {
  const region = new Region(1)
  const got = [region.get('h0'), region.get('h0')]
  region.registry.resolve(bytes)
  await Promise.all(got)
  assert.deepEqual(region.reads, ['h0'])
})

test('where the reader fails, another one reads for the rest, and the reader itself is told why', async () => {
  const region = new Region(4)
  const fails = async (): Promise<never> => {
    await settled()
    throw new P2pfsError('denied', 'not with these credentials')
  }
  const first = assert.rejects(region.get('h0', { read: fails }), { code: 'denied' })
  assert.ok(region.hosts.get('h0')!.find(blob.digest) !== undefined, 'nobody takes what is found')
  const others = ['h1', 'h2', 'h3'].map(async (id) => await region.get(id))
  region.registry.resolve(bytes)
  await first
  for (const blob of await Promise.all(others)) assert.deepEqual(blob, bytes)
  assert.equal(region.reads[0], 'h0')
  assert.ok(region.reads.length <= 3, region.reads.join())
})

test('a reader that has gone is replaced', async () => {
  const region = new Region(3)
  void region.get('h0', { read: async () => await new Promise<never>(() => undefined) })
  await settled()
  region.gone.add('h0')
  region.registry.resolve(bytes)
  assert.deepEqual(await region.get('h1'), bytes)
  assert.deepEqual(await region.get('h2'), bytes)
  assert.deepEqual(region.reads, ['h0', 'h1'])
})

test('what a registry says is asked once, and those who are told know that nothing proves it', async () => {
  const region = new Region(10)
  const key = digestOf(Buffer.from('a question'))
  const answers = Promise.all(
    [...region.hosts].map(async ([id, host]) => {
      const read = async (): Promise<Uint8Array> => {
        region.reads.push(id)
        return await region.registry.promise
      }
      return await host.ask(key, read, { signal })
    }),
  )
  await settled()
  region.registry.resolve(bytes)
  for (const [i, answer] of (await answers).entries()) assert.deepEqual(answer, { bytes, isFirsthand: i === 0 })
  assert.deepEqual([region.reads, region.unproved.size], [['h0'], 9])
})

test('what a registry said is kept for ten seconds, and is not firsthand any more', async () => {
  const region = new Region(1)
  const host = region.hosts.get('h0')!
  const key = digestOf(Buffer.from('a question'))
  const ask = async (): Promise<boolean> =>
    (await host.ask(key, async () => await Promise.resolve(bytes), { signal })).isFirsthand
  assert.deepEqual([await ask(), await ask()], [true, false])
  region.nowMs = 9_999
  assert.ok(host.find(key) !== undefined)
  region.nowMs = 10_000
  assert.deepEqual([host.find(key), await ask()], [undefined, true])
})

test('a host that asks again without a failure asks whom it was sent to', async () => {
  const region = new Region(2)
  const first = new AbortController()
  void region.get('h0')
  await settled()
  const givenUp = region.hosts
    .get('h1')!
    .get(blob, async () => await Promise.reject(new Error('h1 reads')), { signal: first.signal })
  await settled()
  first.abort(new DOMException('given up', 'AbortError'))
  await assert.rejects(givenUp, { name: 'AbortError' })
  const again = region.get('h1')
  region.registry.resolve(bytes)
  assert.deepEqual([await again, region.reads], [bytes, ['h0']])
})

test('a member that a steward names is connected to, and one that is silent is no reason to read what others read', async () => {
  const region = new Region(6)
  void region.get('h0', { read: async () => await new Promise<never>(() => undefined) })
  await settled()
  region.silent.add('h0')
  const got = ['h1', 'h2', 'h3', 'h4', 'h5'].map(async (id) => await region.get(id))
  await settled()
  region.registry.resolve(bytes)
  for (const blob of await Promise.all(got)) assert.deepEqual(blob, bytes)
  assert.deepEqual(region.reads, ['h0', 'h1'])
  assert.equal(region.reached[0], 'h0')
})

test('a blob whose size is not what its name says is read, and the registry’s client refuses it', async () => {
  const region = new Region(2)
  region.registry.resolve(bytes)
  await region.get('h0')
  const lie = { ...blob, sizeBytes: blob.sizeBytes + 1 }
  const refuses = async (): Promise<never> => await Promise.reject(new P2pfsError('invalid', 'another size'))
  for (const id of ['h0', 'h1'])
    await assert.rejects(region.get(id, { wanted: lie, read: refuses }), { code: 'invalid' })
  assert.deepEqual(await region.get('h1'), bytes)
})

test('a blob is kept for others for a minute, and a large one not at all', async () => {
  const region = new Region(1)
  region.registry.resolve(bytes)
  await region.get('h0')
  const host = region.hosts.get('h0')!
  region.nowMs = 59_999
  assert.ok(host.find(blob.digest) !== undefined)
  region.nowMs = 60_000
  assert.equal(host.find(blob.digest), undefined)
  const large = { ...blob, sizeBytes: maxSharedBlobBytes + 1 }
  await region.get('h0', { wanted: large })
  assert.equal(host.find(large.digest), undefined)
})

test('blobs that are kept have a bound together: the oldest goes first', async () => {
  const region = new Region(1)
  region.registry.resolve(bytes)
  const blobs = Array.from({ length: 6 }, (_, i) => ({
    digest: digestOf(Buffer.from(`blob ${i}`)),
    sizeBytes: maxSharedBlobBytes,
  }))
  for (const wanted of blobs) await region.get('h0', { wanted })
  const host = region.hosts.get('h0')!
  assert.deepEqual(
    blobs.map(({ digest }) => host.find(digest) !== undefined),
    [false, false, true, true, true, true],
  )
})
