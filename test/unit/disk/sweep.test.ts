import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Sweep, type SweepParts } from '../../../node/disk/sweep.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

const { signal } = new AbortController()
const lengthBytes = 4096
const digestOfText = (text: string): Digest => digestOf(Buffer.from(text))
const tableOf = (name: string, count = 3): ChunkTable =>
  new ChunkTable(
    Array.from({ length: count }, () => lengthBytes),
    Buffer.concat(Array.from({ length: count }, (_, i) => digestToBytes(digestOfText(`${name} ${i}`)))),
  )
const chunksOf = (table: ChunkTable): Digest[] => Array.from({ length: table.count }, (_, i) => table.digestAt(i))

/** Rootfs of metadata and layers, by name; layers that have a name in common are the same. */
function host(rootfs: Record<string, string[]>) {
  const manifests = new Map(
    Object.entries(rootfs).map(([name, layers]) => [
      digestOfText(name),
      {
        metadata: tableOf(`metadata ${name}`),
        layers: layers.map((layer) => ({ diffId: digestOfText(layer), chunks: tableOf(layer) })),
      },
    ]),
  )
  const state = {
    named: new Set(Object.keys(rootfs).map(digestOfText)),
    mounted: new Set<Digest>(),
    served: new Set<Digest>(),
    pinned: new Set<Digest>(),
    held: new Set<Digest>(),
    isImporting: false,
  }
  const layers = new Set([...manifests.values()].flatMap((manifest) => manifest.layers.map(({ diffId }) => diffId)))
  const maps = new Map([...layers].map((diffId) => [diffId, { windows: tableOf(`windows ${diffId}`, 1) }]))
  const tracked = new Map<Digest, ChunkTable>()
  for (const { metadata, layers: own } of manifests.values())
    for (const table of [metadata, ...own.map(({ chunks }) => chunks)]) tracked.set(table.id, table)
  for (const { windows } of maps.values()) tracked.set(windows.id, windows)
  const here = new Set([...tracked.values()].flatMap(chunksOf))
  const tablesWith = (chunk: Digest): Digest[] =>
    [...tracked.values()].filter((table) => chunksOf(table).includes(chunk)).map(({ id }) => id)
  const parts = {
    catalog: {
      images: async () =>
        await Promise.resolve(
          [...manifests].flatMap(([rootfsDigest, { layers: own }]) =>
            state.named.has(rootfsDigest)
              ? [{ rootfsDigest, manifest: JSON.stringify({ layers: own.map(({ diffId }) => ({ digest: diffId })) }) }]
              : [],
          ),
        ),
      rootfs: async (digest: Digest) => await Promise.resolve(manifests.get(digest)),
      rootfsDigests: async () => await Promise.resolve([...manifests.keys()]),
      rootfsParts: async (digest: Digest) => {
        const manifest = manifests.get(digest)
        return await Promise.resolve(
          manifest && {
            tables: [manifest.metadata.id, ...manifest.layers.map(({ chunks }) => chunks.id)],
            diffIds: manifest.layers.map(({ diffId }) => diffId),
          },
        )
      },
      deleteRootfs: async (digest: Digest) => await Promise.resolve(void manifests.delete(digest)),
      layerDiffIds: async () => await Promise.resolve([...layers]),
      deleteLayer: async (diffId: Digest) => await Promise.resolve(void layers.delete(diffId)),
      blobMapDigests: async () => await Promise.resolve([...maps.keys()]),
      blobMap: async (digest: Digest) => await Promise.resolve(maps.get(digest)),
      deleteBlobMap: async (digest: Digest) => await Promise.resolve(void maps.delete(digest)),
    },
    chunks: { bytesOf: (chunk: Digest) => (here.has(chunk) ? lengthBytes : 0) },
    inventory: {
      digests: () => here.values(),
      has: (chunk: Digest) => here.has(chunk),
      isReferenced: (chunk: Digest) => tablesWith(chunk).length > 0,
      tablesWith,
      drop: (table: Digest) => void tracked.delete(table),
      discard: async (chunk: Digest) => await Promise.resolve(void here.delete(chunk)),
    },
    mounts: {
      list: () => [...state.mounted].map((rootfsDigest) => ({ rootfsDigest })),
      rootfs: (digest: Digest) => (state.served.has(digest) ? {} : undefined),
      whileUnused: async <T>(digest: Digest, task: () => Promise<T>) => {
        if (state.mounted.has(digest)) throw new P2pfsError('conflict', 'mounted')
        return await task()
      },
    },
    pins: { list: () => [...state.pinned].map((rootfsDigest) => ({ rootfsDigest })) },
    kept: {
      isHeld: (table: Digest) => state.held.has(table),
      get isImporting() {
        return state.isImporting
      },
    },
    uses: { forget: () => undefined },
  }
  return { sweep: new Sweep(parts as unknown as SweepParts), manifests, layers, maps, here, state }
}

test('a rootfs that no name stands for goes with its layers, maps and chunks, but for what others have', async () => {
  const { sweep, manifests, layers, maps, here, state } = host({ old: ['base', 'old'], young: ['base', 'young'] })
  const before = here.size
  state.named.delete(digestOfText('old'))
  const dry = await sweep.run({ isDry: true, signal })
  assert.deepEqual([here.size, manifests.size, layers.size], [before, 2, 3])
  const swept = await sweep.run({ signal })
  // Metadata and a layer of 3 chunks each, and a window.
  assert.deepEqual(swept, { rootfs: 1, layers: 1, chunks: { chunks: 7, bytes: 7 * lengthBytes } })
  assert.deepEqual(dry, swept)
  assert.deepEqual([here.size, manifests.size, layers.size, maps.size], [before - 7, 1, 2, 2])
  assert.ok(chunksOf(tableOf('base')).every((chunk) => here.has(chunk)))
  assert.deepEqual(await sweep.run({ signal }), { rootfs: 0, layers: 0, chunks: { chunks: 0, bytes: 0 } })
})

test('what is mounted, read, pinned or being seeded stays, whoever has forgotten its name', async () => {
  for (const by of ['mounted', 'served', 'pinned', 'held'] as const) {
    const { sweep, manifests, here, state } = host({ a: ['base'] })
    const before = here.size
    state.named.clear()
    state[by].add(by === 'held' ? tableOf('metadata a').id : digestOfText('a'))
    await sweep.run({ signal })
    assert.equal(manifests.size, 1, by)
    assert.ok(here.size >= before - 1, by)
  }
})

test('while an import runs no layer goes, and no chunk that may be about to get a rootfs', async () => {
  const { sweep, layers, maps, here, state } = host({ a: ['base'] })
  const lost = digestOfText('of a crash, or of an import')
  here.add(lost)
  state.named.clear()
  state.isImporting = true
  assert.deepEqual((await sweep.run({ signal })).chunks.chunks, 0)
  assert.deepEqual([layers.size, maps.size, here.has(lost)], [1, 1, true])
  state.isImporting = false
  await sweep.run({ signal })
  assert.deepEqual([layers.size, maps.size, here.size], [0, 0, 0])
})

test('with one image to remove, what others have left stays', async () => {
  const { sweep, manifests, here, state } = host({ a: ['one'], b: ['two'] })
  const lost = digestOfText('of a crash')
  here.add(lost)
  state.named.clear()
  await sweep.run({ only: new Set([digestOfText('a')]), signal })
  assert.deepEqual([...manifests.keys()], [digestOfText('b')])
  assert.ok(here.has(lost) && chunksOf(tableOf('two')).every((chunk) => here.has(chunk)))
  assert.ok(chunksOf(tableOf('one')).every((chunk) => !here.has(chunk)))
})
