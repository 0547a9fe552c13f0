import assert from 'node:assert/strict'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { MountResult, SeedJobs } from '../../../node/control/api.ts'
import type { LabHost } from '../../../netlab/hosts/lab-host.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { writeWeightsImage } from '../../../netlab/images/weights-image.ts'
import { Registry } from '../../../netlab/registry/registry.ts'

/** The machine may be busy. */
const wait = { timeoutMs: 150_000 }
/** Sooner than where links are slow, so that the test is short. */
const soon = { hotImages: 'on', hotDelay: '1s', hotTagInterval: '5s' } as const

let network: Network
let registry: Registry
const hosts: LabHost[] = []
const nodes: NodeProcess[] = []

before(async () => {
  network = await Network.create()
  registry = await Registry.start(await network.addHost('registry'))
  for (const name of ['a', 'b', 'c', 'd']) {
    const host = await network.addHost(name)
    hosts.push(host)
    const options = { bootstrap: nodes.slice(0, 2), insecureRegistries: [registry.authority], ...soon }
    nodes.push(await NodeProcess.start(host, options))
  }
  for (const node of nodes) await node.whenStatus('has met all', ({ peers }) => peers.length === nodes.length - 1, wait)
})

after(async () => {
  try {
    await Promise.all(nodes.map(async (node) => await node.stop()))
  } finally {
    await network[Symbol.asyncDispose]()
  }
})

/** Pushes an image of new bytes. @returns its reference */
async function push(seed: number): Promise<string> {
  await writeWeightsImage(network.directory, { mebibytes: 8, seed })
  return await registry.push({ layoutDirectory: `${network.directory}/layout-${seed}`, tag: 'model' }, 'lab/hot:1')
}

/** Mounts the image and reads it, as a boot does. @returns the digest of its rootfs */
async function boot(node: NodeProcess, image: string, name: string, options: string[] = []): Promise<string> {
  const directory = join(node.host.directory, name)
  await mkdir(directory, { recursive: true })
  const { digest, rootfs } = JSON.parse(
    await node.cli(['mount', image, directory, '--json', ...options]),
  ) as MountResult
  await readFile(rootfs)
  return digest
}

test('what hosts mount often is placed on one that never saw it, and what its tag moves to before anybody mounts it', async () => {
  const image = await push(1)
  const [a, b, c, d] = nodes as [NodeProcess, NodeProcess, NodeProcess, NodeProcess]
  const digest = await boot(a, image, 'one')
  for (const [node, name] of [
    [b, 'one'],
    [c, 'one'],
    [a, 'two'],
  ] as const)
    assert.equal(await boot(node, image, name), digest)
  const placed = await d.whenStatus(
    'has the image placed',
    ({ pins, images }) =>
      pins.some((pin) => pin.digest === digest && pin.demand !== undefined) &&
      images.some((image) => image.digest === digest && image.localBytes > 0),
    wait,
  )
  assert.ok(placed.hot.isOn && placed.hot.usedBytes > 0 && placed.hot.usedBytes <= placed.hot.diskBytes)
  const { seeds } = JSON.parse(await d.cli(['seeds', '--json'])) as SeedJobs
  const job = seeds.find((seed) => seed.digest === digest)
  assert.ok(job?.demand !== undefined && job.demand.mounts >= 3 && job.demand.hosts >= 2, JSON.stringify(job))
  assert.match(await d.cli(['seeds']), /hot: \d+ mounts/)

  // Its first mount and all that it reads need nothing but the tag from the registry.
  const before = await d.status()
  await boot(d, image, 'one')
  const after = await d.status()
  assert.equal(after.fetched.registry.bytes, before.fetched.registry.bytes)

  await push(2)
  const moved = await d.whenStatus(
    'has the image that the tag stands for now',
    ({ pins }) => pins.some((pin) => pin.reference === image && pin.digest !== digest && pin.demand !== undefined),
    wait,
  )
  const now = moved.pins.find((pin) => pin.digest !== digest)!
  for (const node of nodes) assert.ok((await node.status()).mounts.every((mounted) => mounted.digest !== now.digest))
  const beforeMoved = (await d.status()).fetched.registry.bytes
  // A mount of an image that is whole on the host does not ask for the tag unless it is told to.
  assert.equal(await boot(d, image, 'moved', ['--pull', 'always']), now.digest)
  assert.equal((await d.status()).fetched.registry.bytes, beforeMoved)
})
