import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { formatRegionKey } from '../../../protocol/region-key.ts'
import { rates, readBlocks, TwoRegions } from './two-regions.ts'

/**
 * The most that one host reads of the registry for a tag: manifests, a config, a list of publications (bytes); 6 kB are
 * measured.
 */
const wordsBytes = 16_000
/** With what frames, proofs and two hosts that read at once add. */
const aboutOne = 1.2

let lab: TwoRegions
before(async () => {
  lab = await TwoRegions.create()
})
after(async () => await lab[Symbol.asyncDispose]())

const sentByKeeper = async (): Promise<number> => (await lab.keeper.host.traffic()).sentBytes

test('a burst of hosts takes one copy over the link between the regions, and no byte of the image from the registry', async (t) => {
  await using running = await lab.start(3)
  const { nodes } = running
  const before = { keeper: await sentByKeeper(), registry: lab.registry.sentBytes }
  const rootfs = await Promise.all(nodes.map(async (node) => await lab.mount(node)))
  const words = lab.registry.sentBytes - before.registry
  // Where a machine stands still for longer than the hedge, the registry would be asked for single chunks.
  await lab.registry.host.cut()
  let between: number
  try {
    const read = await Promise.all(rootfs.map(async (path) => hash('sha256', await readFile(path))))
    between = (await sentByKeeper()) - before.keeper
    assert.deepEqual(read, [lab.whole, lab.whole, lab.whole])
  } finally {
    await lab.registry.host.restore()
  }
  t.diagnostic(JSON.stringify({ between, words, sizeBytes: lab.sizeBytes }))
  assert.ok(between < aboutOne * lab.sizeBytes, `${between} bytes over the link for ${lab.sizeBytes} of the image`)
  assert.ok(words < 3 * wordsBytes, `${words} bytes from the registry`)
})

test('a host with another key is refused, and its log and status say so', async () => {
  const key = join(lab.registry.host.directory, 'another.key')
  writeFileSync(key, formatRegionKey(new Uint8Array(32).fill(7)), { mode: 0o600 })
  await using running = await lab.start(1, { options: { P2PFS_NEIGHBOUR_KEY_FILE: `b=${key}` }, isGuest: false })
  const node = running.nodes[0]!
  const { neighbours } = await node.whenStatus('is refused', ({ neighbours: [b] }) => b?.problem !== undefined, {
    timeoutMs: 30_000,
  })
  assert.match(neighbours[0]!.problem!, /it does not take this host as a guest/)
  assert.match(await node.log(), /neighbour region refuses this host; compare --neighbour-key-file/)
  assert.match(await node.cli(['status']), /neighbour {5}b: 1 known, 0 connected, .*; it does not take this host/)
})

test('where the neighbour is cut off in the middle no read fails, and the registry takes over', async (t) => {
  await using running = await lab.start(1)
  const node = running.nodes[0]!
  const rootfs = await lab.mount(node)
  const { host } = lab.keeper
  // So slow that most is not here when it is cut off.
  await host.shape(rates.between / 5)
  let cutAt = 0
  let tookMs: number[]
  try {
    tookMs = await readBlocks(rootfs, async (done, all) => {
      if (cutAt > 0 || done < all / 4) return
      cutAt = done
      await host.cut()
    })
  } finally {
    await host.restore()
    await host.shape(rates.between)
  }
  const { fetched, neighbours } = await node.status()
  t.diagnostic(JSON.stringify({ slowestMs: Math.max(...tookMs), afterCutMs: tookMs.slice(cutAt, cutAt + 3), fetched }))
  assert.ok(fetched.neighbour.bytes > 0 && fetched.registry.bytes > 0)
  // Connections that are cut are noticed after ten seconds; reads go on before that.
  assert.ok(Math.max(...tookMs) < 8_000, `a read took ${Math.max(...tookMs)} ms`)
  assert.equal(neighbours.length, 1)
  assert.doesNotMatch(await node.log(), /read failed/)
})

test('where the registry is cut off reads go on with what the neighbour has', async () => {
  await using running = await lab.start(1)
  const node = running.nodes[0]!
  const rootfs = await lab.mount(node)
  await lab.registry.host.cut()
  try {
    assert.equal(hash('sha256', await readFile(rootfs)), lab.whole)
  } finally {
    await lab.registry.host.restore()
  }
  // Not even of what is published with the image.
  assert.equal((await node.status()).fetched.registry.bytes, 0)
})

test('what comes from neighbours keeps to its bandwidth, the registry gives the rest, and p2pfs limits changes it', async (t) => {
  const bytesPerSecond = 500e3
  await using running = await lab.start(1, { options: { P2PFS_NEIGHBOUR_BANDWIDTH: '4Mbit' } })
  const node = running.nodes[0]!
  const before = await sentByKeeper()
  const startedAt = performance.now()
  assert.equal(await lab.read(node), lab.whole)
  const seconds = (performance.now() - startedAt) / 1000
  const between = (await sentByKeeper()) - before
  const { fetched } = await node.status()
  t.diagnostic(JSON.stringify({ seconds, between, fetched }))
  // A rootfs manifest and a chunk that are on the way pass before the limit is felt.
  assert.ok(between < bytesPerSecond * (seconds + 1) + 512 * 1024, `${between} bytes in ${seconds} s`)
  assert.ok(fetched.registry.bytes > fetched.neighbour.bytes)
  const limits = JSON.parse(await node.cli(['limits', '--neighbour', 'none', '--json'])) as {
    limits: { name: string; rate: string; isChanged: boolean }[]
  }
  const { rate, isChanged } = limits.limits.find(({ name }) => name === 'neighbour')!
  assert.deepEqual([rate, isChanged], ['none', true])
})

test('what guests get keeps to the limit of the host that gives it, which is changed while it runs', async (t) => {
  const bytesPerSecond = 500e3
  await using running = await lab.start(1)
  const node = running.nodes[0]!
  await lab.keeper.cli(['limits', '--guest', '4Mbit'])
  try {
    const rootfs = await lab.mount(node)
    const before = await sentByKeeper()
    const startedAt = performance.now()
    await readBlocks(rootfs, () => undefined)
    const seconds = (performance.now() - startedAt) / 1000
    const between = (await sentByKeeper()) - before
    t.diagnostic(JSON.stringify({ seconds, between }))
    assert.ok(between < bytesPerSecond * (seconds + 1) + 1024 * 1024, `${between} bytes in ${seconds} s`)
  } finally {
    await lab.keeper.cli(['limits', '--reset'])
  }
})
