import assert from 'node:assert/strict'
import { test } from 'node:test'
import { debianImages, oddImage } from '../../../netlab/images/images.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { Registry } from '../../../netlab/registry/registry.ts'
import { complaints, runPeerReads } from '../../../netlab/scenarios/peer-reads.ts'

test('B and C read the right bytes from A, with the registry cut off and twenty kills of the daemon', async () => {
  const { gzip } = await debianImages()
  const outcome = await runPeerReads(gzip, { kills: 20 })
  assert.deepEqual(complaints(outcome), [])
  assert.ok(outcome.comparisons >= 1)
})

test('B and C read an image with everything that a tar can hold', async () => {
  const outcome = await runPeerReads(await oddImage(), { kills: 3 })
  assert.deepEqual(complaints(outcome), [])
})

test('the compression of the layers does not change the rootfs', async () => {
  const { gzip, mixed } = await debianImages()
  await using network = await Network.create()
  const registry = await Registry.start(await network.addHost('registry'))
  const references = [await registry.push(gzip, 'lab/image:gzip'), await registry.push(mixed, 'lab/image:mixed')]
  await using node = await NodeProcess.start(await network.addHost('a'), { insecureRegistries: [registry.authority] })
  const digests: string[] = []
  for (const reference of references) digests.push((await node.seed(reference)).digest)
  assert.equal(digests[0], digests[1])
})
