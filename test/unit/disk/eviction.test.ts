import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { Eviction } from '../../../node/disk/eviction.ts'
import { KeptChunks, type KeptChunksParts } from '../../../node/disk/kept-chunks.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { Inventory, type Announcer } from '../../../node/store/inventory.ts'
import { StoreRoom } from '../../../node/store/store-room.ts'
import { UseScores } from '../../../node/store/use-scores.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()
const lengthBytes = 64 * 1024
const own = 'host-m'

/** A segment of chunks of 64 KiB that no other segment has. */
function segment(seed: number, count: number): { table: ChunkTable; chunks: { digest: Digest; bytes: Buffer }[] } {
  const chunks = Array.from({ length: count }, (_, i) => {
    const bytes = Buffer.alloc(lengthBytes, `${seed} ${i} `)
    return { digest: digestOf(bytes), bytes }
  })
  const lengths = chunks.map(() => lengthBytes)
  return { table: new ChunkTable(lengths, Buffer.concat(chunks.map(({ digest }) => digestToBytes(digest)))), chunks }
}

type Segment = ReturnType<typeof segment>

/** A host with the rootfs `a`, `b`, `c`, each of metadata and one layer, all whole here. */
async function host(t: TestContext) {
  const directory = temporaryDirectory(t)
  const room = new StoreRoom(
    { disk: async () => await Promise.resolve({ freeBytes: 1e12, sizeBytes: 1e12 }), log: silentLog },
    { limitBytes: 64 * 2 ** 20 },
  )
  const uses = new UseScores({ capacityBytes: () => room.limitBytes })
  const reserve = { isFull: false, release: async (): Promise<void> => undefined }
  const store = await ChunkStore.open(
    { log: silentLog, reserve, room, uses, syncFilesystem: async () => undefined },
    { directory },
  )
  t.after(async () => await store[Symbol.asyncDispose]())
  await store.countFiles({ signal })
  const events: string[] = []
  const region: Announcer = {
    announce: () => undefined,
    announceChunks: (table, indexes) => events.push(...indexes.map((index) => `have ${table} ${index}`)),
    withdrawChunks: (table, indexes) => events.push(...indexes.map((index) => `withdraw ${table} ${index}`)),
    forget: () => undefined,
  }
  const inventory = new Inventory({ chunks: store, region })
  const rootfs = new Map<Digest, { metadata: Segment; layer: Segment }>()
  const names = ['a', 'b', 'c'] as const
  const [a, b, c] = names.map((_, i) => {
    const digest = digestOf(Buffer.from([i]))
    rootfs.set(digest, { metadata: segment(i * 2, 2), layer: segment(i * 2 + 1, 10) })
    return { digest, ...rootfs.get(digest)! }
  }) as [RootfsHere, RootfsHere, RootfsHere]
  for (const { metadata, layer } of [a, b, c])
    for (const { table, chunks } of [metadata, layer]) {
      inventory.track(table)
      for (const { digest, bytes } of chunks) await inventory.put(digest, bytes, 'registry')
    }
  const holders = new Map<Digest, string[]>()
  const state = {
    images: [] as { reference: string; rootfsDigest: Digest; attestation: { key: string } }[],
    pins: [] as { rootfsDigest: Digest; extent: 'full' | 'hot' }[],
    profile: [] as Digest[],
    imports: [] as unknown[],
    transaction: new Set<Digest>(),
  }
  let changed = (): void => undefined
  const parts = {
    own,
    catalog: {
      images: async () => await Promise.resolve(state.images),
      rootfsDigests: async () => await Promise.resolve([...rootfs.keys()]),
      rootfsParts: async (digest: Digest) => {
        const { metadata, layer } = rootfs.get(digest)!
        return await Promise.resolve({ tables: [metadata.table.id, layer.table.id], diffIds: [] })
      },
      profile: async () => await Promise.resolve({ chunks: state.profile }),
      onObject: (listener: () => void) => (changed = listener),
    },
    pins: { list: () => state.pins },
    inventory,
    transactions: { has: (digest: Digest) => state.transaction.has(digest) },
    imports: { list: () => state.imports },
    availability: {
      holders: (table: Digest, index: number) =>
        [...holders].flatMap(([chunk, peers]) => {
          const place = inventory.requestOf(chunk)
          return place?.table === table && place.index === index ? peers : []
        }),
    },
  }
  const kept = new KeptChunks(parts as unknown as KeptChunksParts)
  kept.layersTracked()
  let takeUses = (_listener: (chunk: Digest) => void): void => undefined
  const eviction = new Eviction({
    chunks: store,
    inventory: {
      withdraw: (digests) => inventory.withdraw(digests),
      restore: (digest) => inventory.restore(digest),
      discard: async (digest) => {
        events.push(`discard ${digest}`)
        await inventory.discard(digest)
      },
    },
    room,
    uses,
    kept,
    reads: { takeUses: (listener) => takeUses(listener) },
    log: silentLog,
  })
  return {
    a,
    b,
    c,
    store,
    inventory,
    room,
    eviction,
    kept,
    holders,
    state,
    events,
    directory,
    use: (digests: Iterable<Digest>) => {
      for (const digest of digests) store.noteUse(digest)
    },
    changed: () => changed(),
    onLook: (look: typeof takeUses) => (takeUses = look),
    /** The chunks that are chosen where so many are to go. */
    chosen: async (count: number) => new Set(await eviction.choose(count * lengthBytes)),
  }
}

interface RootfsHere {
  digest: Digest
  metadata: Segment
  layer: Segment
}

const digestsOf = ({ chunks }: Segment): Digest[] => chunks.map(({ digest }) => digest)
const isWithin = (some: ReadonlySet<Digest>, all: readonly Digest[]): boolean =>
  [...some].every((digest) => all.includes(digest))

test('chunks are withdrawn from the region before they are removed, and their room is free after the next sync', async (t) => {
  const { eviction, events, room, store, directory } = await host(t)
  const before = room.usedBytes
  events.length = 0
  const evicted = await eviction.evict(5 * lengthBytes)
  assert.deepEqual(evicted, { chunks: 5, bytes: 5 * lengthBytes })
  assert.deepEqual(
    events.map((event) => event.split(' ')[0]),
    [...Array.from({ length: 5 }, () => 'withdraw'), ...Array.from({ length: 5 }, () => 'discard')],
  )
  assert.equal(room.usedBytes, before)
  await store.flush({ signal })
  assert.equal(room.usedBytes, before - 5 * lengthBytes)
  assert.deepEqual(room.evicted, evicted)
  for (const event of events.slice(5))
    assert.equal(existsSync(chunkFile(directory, event.slice('discard '.length) as Digest)), false)
})

test('what is used least and last goes first', async (t) => {
  const { a, b, c, use, chosen } = await host(t)
  for (const { metadata, layer } of [a, c]) use([...digestsOf(metadata), ...digestsOf(layer)])
  assert.ok(isWithin(await chosen(8), digestsOf(b.layer)))
})

test('what others hold goes before what nobody holds, and metadata last', async (t) => {
  const { a, b, c, holders, chosen } = await host(t)
  const held = digestsOf(c.layer).slice(4)
  for (const digest of held) holders.set(digest, ['host-z'])
  assert.deepEqual(await chosen(6), new Set(held))
  const metadata = [a, b, c].flatMap((rootfs) => digestsOf(rootfs.metadata))
  const most = await chosen(30)
  assert.equal(most.size, 30)
  assert.ok(metadata.every((digest) => !most.has(digest)))
})

test('a chunk that is used between its withdrawal and its removal stays, and the region hears of it again', async (t) => {
  const { a, b, c, use, store, eviction, events, onLook } = await host(t)
  for (const { metadata, layer } of [b, c]) use([...digestsOf(metadata), ...digestsOf(layer)])
  const used = digestsOf(a.layer)[3]!
  onLook((listener) => listener(used))
  events.length = 0
  await eviction.evict(10 * lengthBytes)
  assert.equal(store.has(used), true)
  assert.deepEqual(
    events.filter((event) => event.endsWith(` 3`)),
    [`withdraw ${a.layer.table.id} 3`, `have ${a.layer.table.id} 3`],
  )
})

test('pinned images stay, of hot ones metadata and boot profile; what is seeded, imported, or being named stays', async (t) => {
  const { a, b, c, store, kept, state, chosen, inventory } = await host(t)
  state.pins.push({ rootfsDigest: a.digest, extent: 'full' }, { rootfsDigest: b.digest, extent: 'hot' })
  state.profile = digestsOf(b.layer).slice(0, 3)
  const mayGo = [...digestsOf(b.layer).slice(3), ...digestsOf(c.metadata), ...digestsOf(c.layer)]
  assert.deepEqual(await chosen(1_000), new Set(mayGo))
  const held = kept.hold([c.layer.table.id])
  assert.ok(isWithin(await chosen(1_000), [...digestsOf(b.layer), ...digestsOf(c.metadata)]))
  held[Symbol.dispose]()
  for (const digest of digestsOf(c.metadata)) state.transaction.add(digest)
  assert.ok(isWithin(await chosen(1_000), [...digestsOf(b.layer), ...digestsOf(c.layer)]))
  state.transaction.clear()

  // Neither is of an image yet: a layer of an import, and one that a crash has left.
  const [layer, lost] = [segment(50, 3), segment(51, 3)]
  inventory.track(layer.table, { provisional: true })
  for (const { digest, bytes } of [...layer.chunks, ...lost.chunks]) await inventory.put(digest, bytes, 'registry')
  const unneeded = [...digestsOf(layer), ...digestsOf(lost)]
  state.imports.push({})
  assert.deepEqual(await chosen(1_000), new Set(mayGo))
  state.imports.pop()
  await kept.whileImporting(async () => assert.deepEqual(await chosen(1_000), new Set(mayGo)))
  assert.deepEqual(await chosen(6), new Set(unneeded))

  // A window of a blob map goes only where others have it.
  const windows = segment(52, 3)
  inventory.track(windows.table)
  for (const { digest, bytes } of windows.chunks) await inventory.put(digest, bytes, 'registry')
  assert.ok(digestsOf(windows).every((digest) => store.has(digest)))
  assert.deepEqual(await chosen(1_000), new Set([...mayGo, ...unneeded]))
})

test('of an image local:NAME its maker keeps all, and of two others that hold a chunk not both rely on each other', async (t) => {
  const { a, b, c, state, holders, chosen, changed } = await host(t)
  state.images.push(
    { reference: 'local:own', rootfsDigest: a.digest, attestation: { key: own } },
    { reference: 'local:theirs', rootfsDigest: b.digest, attestation: { key: 'host-q' } },
  )
  changed()
  const ofNoLocal = [...digestsOf(c.metadata), ...digestsOf(c.layer)]
  assert.deepEqual(await chosen(1_000), new Set(ofNoLocal))
  const [first, second] = digestsOf(b.layer)
  for (const digest of digestsOf(a.layer)) holders.set(digest, ['host-a'])
  holders.set(first!, ['host-z'])
  holders.set(second!, ['host-z', 'host-a'])
  assert.deepEqual(await chosen(1_000), new Set([...ofNoLocal, second!]))
  // Shared with an image of a registry: it stays, too.
  state.images.push({ reference: 'docker.io/library/a:1', rootfsDigest: a.digest, attestation: { key: 'host-q' } })
  changed()
  assert.deepEqual(await chosen(1_000), new Set([...ofNoLocal, second!]))
})

test('where nothing may go, nobody waits for room', async (t) => {
  const { a, b, c, state, eviction, room } = await host(t)
  for (const { digest } of [a, b, c]) state.pins.push({ rootfsDigest: digest, extent: 'full' })
  const taking = room.take(64 * 2 ** 20)
  const refused = assert.rejects(taking)
  assert.deepEqual(await eviction.evict(2 ** 20), { chunks: 0, bytes: 0 })
  await refused
})
