import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { writeWeightsImage } from '../../../netlab/images/weights-image.ts'
import { eventually } from '../../support/deadline.ts'

/** More than a host has neighbours. */
const count = 10
/** Fewer: so hosts are connected to their neighbours only. */
const fullMesh = 4
const mebibytes = 4
/** A host that dies is missed after 6 s, one that joins is known at once; on a busy machine it takes longer. */
const patience = { timeoutMs: 60_000 }

/** Two hosts that are not connected. */
async function strangers(nodes: readonly NodeProcess[]): Promise<{ holder: NodeProcess; cold: NodeProcess }> {
  for (const holder of nodes) {
    const known = new Set((await holder.status()).peers.map(({ name }) => name))
    const cold = nodes.find((node) => node !== holder && !known.has(node.host.name))
    if (cold !== undefined) return { holder, cold }
  }
  throw new Error('all hosts are connected each to each')
}

test(`${count} hosts: a cold mount finds its image, and reads it, at a holder that it is not connected to`, async (t) => {
  const network = await Network.create()
  t.after(async () => await network[Symbol.asyncDispose]())
  const first = await NodeProcess.start(await network.addHost('h0'), { fullMesh })
  t.after(async () => await first.stop())
  const nodes = [first]
  while (nodes.length < count) {
    const node = await NodeProcess.start(await network.addHost(`h${nodes.length}`), { bootstrap: [first], fullMesh })
    t.after(async () => await node.stop())
    nodes.push(node)
  }
  const allKnow = async (those: readonly NodeProcess[]): Promise<void> => {
    const startedAt = performance.now()
    for (const node of those)
      await node.whenStatus('knows all', ({ members }) => members === those.length - 1, patience)
    t.diagnostic(`all ${those.length} know all after ${Math.round(performance.now() - startedAt)} ms`)
  }
  await allKnow(nodes)
  const { holder, cold } = await strangers(nodes)
  const image = await writeWeightsImage(network.directory, { mebibytes, seed: 3 })
  await holder.cli(['import', image, 'weights'])
  const tar = join(network.directory, 'weights-3.tar')
  const content = execFileSync('tar', ['-xOf', tar, 'model.safetensors'], { maxBuffer: 2 * mebibytes * 2 ** 20 })
  const directory = join(cold.host.directory, 'mnt')
  // The trackers of its name are told of it within seconds.
  await eventually('the image is found', async () => await cold.mount('local:weights', directory), {
    timeoutMs: 60_000,
  })
  await cold.unmount(directory)
  await cold.cli(['mount', 'local:weights', directory, '--as', 'tree', '--json'])
  const sum = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
  assert.equal(sum(await readFile(join(directory, 'model.safetensors'))), sum(content))
  const { fetched } = await cold.status()
  assert.ok(fetched.peer.bytes >= mebibytes * 2 ** 20)
  await cold.unmount(directory)

  const [dying] = nodes.filter((node) => node !== first && node !== holder)
  await dying!.killAll()
  const left = nodes.filter((node) => node !== dying)
  await allKnow(left)
  const late = await NodeProcess.start(await network.addHost('late'), { bootstrap: [first], fullMesh })
  t.after(async () => await late.stop())
  await allKnow([...left, late])
})
