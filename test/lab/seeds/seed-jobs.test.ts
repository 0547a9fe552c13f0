import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { SeedHost, SeedJobReport, SeedJobResult, SeedJobs } from '../../../node/control/api.ts'
import type { LabHost } from '../../../netlab/hosts/lab-host.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { writeWeightsImage } from '../../../netlab/images/weights-image.ts'
import { Registry } from '../../../netlab/registry/registry.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { eventually } from '../../support/deadline.ts'

const mebibytes = 24
/** An image takes five seconds over it: time to lose hosts in the middle. */
const linkBitsPerSecond = 40e6
/** For a busy machine. */
const wait = { timeoutMs: 120_000 }
const names = ['a', 'b', 'c', 'd', 'e', 'f'] as const

let network: Network
let registry: Registry
const hosts: LabHost[] = []
const nodes = new Map<string, NodeProcess>()

before(async () => {
  network = await Network.create()
  registry = await Registry.start(await network.addHost('registry'))
  for (const name of names) hosts.push(await network.addHost(name, { rateBitsPerSecond: linkBitsPerSecond }))
  await startAll()
})

after(async () => {
  try {
    await Promise.all([...nodes.values()].map(async (node) => await node.stop()))
  } finally {
    await network[Symbol.asyncDispose]()
  }
})

/** Starts the hosts that do not run, and waits until all have met. */
async function startAll(): Promise<void> {
  for (const host of hosts) {
    if (nodes.has(host.name)) continue
    const bootstrap = [...nodes.values()].slice(0, 2)
    nodes.set(host.name, await NodeProcess.start(host, { bootstrap, insecureRegistries: [registry.authority] }))
  }
  await Promise.all(
    [...nodes.values()].map(
      async (node) => await node.whenStatus('has met all', ({ peers }) => peers.length === names.length - 1, wait),
    ),
  )
}

async function kill(name: string): Promise<void> {
  await nodes.get(name)!.killAll()
  nodes.delete(name)
}

/** An image that nobody has seen, in a layout: who is asked for it first imports it itself, others have it from members. */
async function newLocalImage(seed: number): Promise<string> {
  return await writeWeightsImage(network.directory, { mebibytes, seed })
}

/** An image of the registry that nobody has seen. @returns its reference */
async function newImage(seed: number): Promise<string> {
  await writeWeightsImage(network.directory, { mebibytes, seed })
  const layoutDirectory = `${network.directory}/layout-${seed}`
  return await registry.push({ layoutDirectory, tag: 'model' }, `lab/seed:${seed}`)
}

/** Runs `p2pfs seed` on host a. @returns its exit status and what it prints */
async function seed(...args: string[]): Promise<{ exit: number; result: SeedJobResult }> {
  const node = nodes.get('a')!
  const { exit, text } = await cli(node, ['seed', ...args, '--json'])
  return { exit, result: JSON.parse(text) as SeedJobResult }
}

async function cli(node: NodeProcess, args: string[]): Promise<{ exit: number; text: string }> {
  try {
    return { exit: 0, text: await node.cli(args) }
  } catch (error) {
    const { cause } = error as { cause?: unknown }
    if (!isP2pfsError(cause) || typeof cause.details['exitCode'] !== 'number') throw error
    // Its output is in the message, after the command.
    return { exit: cause.details['exitCode'], text: cause.message.slice(cause.message.indexOf('{')) }
  }
}

async function jobOf(reference: string, name = 'a'): Promise<SeedJobReport | undefined> {
  const node = nodes.get(name)!
  const { seeds } = JSON.parse(await node.cli(['seeds', '--json'])) as SeedJobs
  return seeds.find((job) => job.reference.endsWith(reference.slice(reference.indexOf('/'))))
}

/** Hosts other than `a` that are in the middle of the image. */
async function inTheMiddle(reference: string, count: number): Promise<SeedHost[]> {
  return await eventually(
    'hosts are in the middle of the image',
    async () => {
      const job = await jobOf(reference)
      const found = job?.hosts.filter(({ name, held, total }) => name !== 'a' && held > 0 && held < total) ?? []
      return found.length >= count ? found : undefined
    },
    wait,
  )
}

const held = ({ hosts }: SeedJobReport): SeedHost[] =>
  hosts.filter(({ state, held, verified, total }) => state === 'held' && held === total && verified === total)

/** That hosts hold what the report says, by their own word. */
async function checkCopies(report: SeedJobReport): Promise<void> {
  for (const { name } of held(report)) {
    const { images, pins } = await nodes.get(name)!.status()
    const image = images.find(({ digest }) => digest === report.digest)
    assert.ok(image !== undefined && image.localBytes === image.sizeBytes, `${name} has the image whole`)
    assert.ok(
      pins.some(({ job, until }) => job === report.id && until === report.endsAt),
      `${name} has pinned it`,
    )
  }
}

test('a seed of three copies ends with 0 although two of its hosts die in the middle', async () => {
  const image = await newLocalImage(1)
  const seeding = seed(image, '--copies', '3', '--wait', '--timeout', '100s')
  const dying = (await inTheMiddle(image, 2)).map(({ name }) => name).toSorted()
  for (const name of dying) await kill(name)
  const { exit, result } = await seeding
  assert.equal(exit, 0, JSON.stringify(result))
  assert.equal(result.placed, true)
  assert.equal(result.verifiedCopies, 3)
  assert.equal(held(result).length, 3)
  assert.deepEqual(
    result.hosts
      .filter(({ state }) => state === 'gone')
      .map(({ name }) => name)
      .toSorted(),
    dying,
  )
  await checkCopies(result)
})

test('with four of six hosts dead it ends with 1, and says which hosts hold what', async () => {
  await startAll()
  const image = await newLocalImage(2)
  const seeding = seed(image, '--copies', '3', '--wait', '--timeout', '25s')
  const [first] = await inTheMiddle(image, 1)
  const dying = [first!.name, ...names.filter((name) => name !== 'a' && name !== first!.name)].slice(0, 4)
  for (const name of dying) await kill(name)
  const { exit, result } = await seeding
  assert.equal(exit, 1, JSON.stringify(result))
  assert.equal(result.placed, false)
  assert.ok(result.verifiedCopies < 3)
  assert.equal(result.hosts.find(({ name }) => name === first!.name)?.state, 'gone')
  assert.ok(held(result).some(({ name }) => name === 'a'))
  await checkCopies(result)
})

test('an order goes on when the host that took it starts anew, and when it is lost for good', async () => {
  await startAll()
  const image = await newImage(3)
  const a = nodes.get('a')!
  const seeding = seed(image, '--copies', '3', '--timeout', '100s')
  await inTheMiddle(image, 1)
  // Its supervisor starts it anew, and the command asks again.
  await a.killDaemon()
  const { exit, result } = await seeding
  assert.equal(exit, 0, JSON.stringify(result))
  await checkCopies(result)

  // Built by b: hosts believe makers that are there.
  const other = await newLocalImage(4)
  await nodes.get('b')!.seed(other)
  const { result: taken } = await seed(other, '--copies', '3', '--detach')
  assert.equal(taken.placed, undefined)
  await inTheMiddle(other, 1)
  await kill('a')
  const placed = await eventually(
    'others have placed it',
    async () => {
      const job = await jobOf(other, 'b')
      return job?.state === 'placed' ? job : undefined
    },
    wait,
  )
  assert.equal(held(placed).length, 3)
  assert.ok(held(placed).every(({ name }) => name !== 'a'))
  await checkCopies(placed)
})

test('a seed on named hosts is on these; hot, its metadata is on all; cancelled, its pins end', async () => {
  await startAll()
  const image = await newImage(5)
  const { exit, result } = await seed(image, '--on', 'c,d', '--hot', '--ttl', '90m', '--timeout', '100s')
  assert.equal(exit, 0, JSON.stringify(result))
  const whole = held(result).filter(({ extent }) => extent === 'full')
  assert.deepEqual(whole.map(({ name }) => name).toSorted(), ['c', 'd'])
  assert.deepEqual(
    held(result)
      .map(({ name }) => name)
      .toSorted(),
    names,
  )
  const pinnedOn = async (): Promise<string[]> => {
    const all = await Promise.all(
      [...nodes].map(async ([name, node]) => {
        const { pins } = await node.status()
        return pins.some(({ job }) => job === result.id) ? [name] : []
      }),
    )
    return all.flat().toSorted()
  }
  assert.deepEqual(await pinnedOn(), names)
  await nodes.get('e')!.cli(['seeds', 'cancel', result.id])
  await eventually('no host has it pinned', async () => ((await pinnedOn()).length === 0 ? true : undefined), wait)
  assert.equal((await jobOf(image, 'f'))?.state, 'cancelled')
})

test('an order for drives and trees has the same hosts hold both formats', async () => {
  await startAll()
  const image = await newImage(8)
  const { exit, result } = await seed(image, '--copies', '2', '--as', 'drive,tree', '--timeout', '100s')
  const { others = [] } = result
  assert.deepEqual([exit, result.format, others.map(({ format }) => format)], [0, 'ext4', ['erofs']])
  const holders = ({ hosts }: SeedJobReport): string[] =>
    hosts
      .filter(({ state, extent }) => state === 'held' && extent === 'full')
      .map(({ name }) => name)
      .toSorted()
  assert.equal(holders(result).length, 2)
  assert.deepEqual(holders(others[0]!), holders(result))
})
