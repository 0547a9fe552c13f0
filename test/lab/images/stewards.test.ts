import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { eventually } from '../../support/deadline.ts'
import { FaultRegistryProcess } from '../../../netlab/registry/fault-registry-process.ts'
import type { LabHost } from '../../../netlab/hosts/lab-host.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { dropPageCache } from '../../../netlab/hosts/page-cache.ts'
import { OciLayout, type StoredLayer } from '../../support/oci-layout.ts'
import type { LoggedRequest } from '../../support/registry/front.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { rendezvous } from '../../../node/peers/rendezvous.ts'
import { createRandom } from '../../support/random.ts'

/** Each scenario has images that nobody has seen, of the same layers: so many of so many bytes, which do not compress. */
const scenarios = ['denied', 'burst', 'seeds', 'formats', 'stalled', 'killed'] as const
type Scenario = (typeof scenarios)[number]
const layerCount = 4
const layerBytes = 2 << 20
/**
 * Tags of an image that differ in its config, so that any host is the steward of one of them, and any other the next in
 * rank.
 */
const variants = 120
/** The host that has no credentials at first. */
const stranger = 'n3'
const user = { username: 'u', password: 'p' }
/** For a busy machine. */
const wait = { timeoutMs: 60_000 }

let network: Network
let registry: FaultRegistryProcess
let nodes: NodeProcess[] = []
const layersOf: Partial<Record<Scenario, StoredLayer[]>> = {}
const dockerConfig = (node: { host: { directory: string } }): string =>
  join(node.host.directory, 'docker', 'config.json')

before(async () => {
  network = await Network.create()
  const layout = join(network.directory, 'layout')
  await buildImages(layout)
  registry = await FaultRegistryProcess.start(await network.addHost('registry'), {
    layouts: { 'lab/image': layout },
    access: { kind: 'basic' },
    users: [user],
  })
  const start = async (host: LabHost, bootstrap: NodeProcess[]): Promise<NodeProcess> => {
    if (host.name !== stranger) await login({ host })
    return await NodeProcess.start(host, {
      bootstrap,
      insecureRegistries: [registry.authority],
      // Credentials allow the registry.
      peerRegistries: [],
      env: { DOCKER_CONFIG: join(host.directory, 'docker') },
    })
  }
  const hosts: LabHost[] = []
  for (const name of ['n0', 'n1', 'n2', stranger]) hosts.push(await network.addHost(name))
  const first = await start(hosts[0]!, [])
  nodes = [first, ...(await Promise.all(hosts.slice(1).map(async (host) => await start(host, [first]))))]
  await allMet()
})

after(async () => {
  try {
    await Promise.all(nodes.map(async (node) => await node.stop()))
  } finally {
    await network[Symbol.asyncDispose]()
  }
})

async function buildImages(directory: string): Promise<void> {
  const layout = await OciLayout.create(directory)
  const random = createRandom(23)
  for (const scenario of scenarios) {
    const layers: StoredLayer[] = []
    for (let i = 0; i < layerCount; i++) {
      const tar = join(network.directory, 'layer.tar')
      await writeFile(tar, writeTar([{ path: `${scenario}-${i}`, type: 'file', content: contentOf(random) }]))
      layers.push(await layout.addLayer(tar, 'gzip'))
    }
    layersOf[scenario] = layers
    for (let variant = 0; variant < variants; variant++)
      await layout.addImage(`${scenario}-${variant}`, layers, { Labels: { variant: String(variant) } })
  }
}

/** Digits: what compresses refers back, so that layers have windows. */
const contentOf = (random: ReturnType<typeof createRandom>): Buffer =>
  Buffer.from(random.bytes(layerBytes).toString('hex'))

async function login({ host }: { host: { directory: string } }): Promise<void> {
  const auth = Buffer.from(`${user.username}:${user.password}`).toString('base64')
  await mkdir(join(host.directory, 'docker'), { recursive: true })
  await writeFile(dockerConfig({ host }), JSON.stringify({ auths: { [registry.authority]: { auth } } }))
}

async function allMet(): Promise<void> {
  await Promise.all(
    nodes.map(
      async (node) => await node.whenStatus('has met all', ({ peers }) => peers.length === nodes.length - 1, wait),
    ),
  )
}

/** An image of the scenario that this node is the steward of, and `next` the next in rank. */
async function imageOf(scenario: Scenario, steward: NodeProcess, next?: NodeProcess): Promise<string> {
  const index = JSON.parse(await readFile(join(network.directory, 'layout', 'index.json'), 'utf8')) as {
    manifests: { digest: string; annotations: Record<string, string> }[]
  }
  const ids = await Promise.all(nodes.map(async (node) => (await node.status()).peerId))
  const first = await Promise.all(
    [steward, ...(next === undefined ? [] : [next])].map(async (node) => (await node.status()).peerId),
  )
  const found = index.manifests
    .map(({ digest, annotations }) => ({ digest, tag: annotations['org.opencontainers.image.ref.name']! }))
    .find(
      ({ digest, tag }) => tag.startsWith(`${scenario}-`) && first.every((id, i) => rendezvous(digest, ids)[i] === id),
    )
  assert.ok(found)
  return `${registry.authority}/lab/image:${found.tag}`
}

interface Read {
  /** Answered requests for a whole layer, for each layer in order. */
  whole: number[]
  sentBytes: number
}

/** Counts the requests to the registry for the image's layers. */
async function readOf(scenario: Scenario): Promise<Read> {
  const log = (await registry.log()).filter(({ method, status }) => method === 'GET' && status !== 401)
  const of = (layer: StoredLayer): LoggedRequest[] => log.filter(({ path }) => path.includes(layer.descriptor.digest))
  const layers = layersOf[scenario]!
  return {
    whole: layers.map((layer) => of(layer).filter(({ range }) => range === undefined).length),
    sentBytes: layers.flatMap(of).reduce((sum, { bodyBytesSent }) => sum + bodyBytesSent, 0),
  }
}

const sizeOf = (layers: StoredLayer[]): number => layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0)

/** Mounts on all of these hosts at once. @returns where the image files are */
async function mountAll(image: string, on: NodeProcess[]): Promise<string[]> {
  return await Promise.all(
    on.map(async (node) => (await node.mount(image, join(node.host.directory, image.split(':').at(-1)!))).rootfs),
  )
}

/** Checks that all hosts read the same, and that the layers' files are in it. */
async function checkReads(scenario: Scenario, paths: string[]): Promise<void> {
  await dropPageCache()
  const hashes = await Promise.all(
    paths.map(async (path) => {
      const hash = createHash('sha256')
      for await (const piece of createReadStream(path)) hash.update(piece as Buffer)
      return hash.digest('hex')
    }),
  )
  assert.equal(new Set(hashes).size, 1)
  // A layer's file is a run of the image.
  const image = await readFile(paths[0]!)
  const random = createRandom(23)
  for (const other of scenarios) {
    for (let i = 0; i < layerCount; i++) {
      const content = contentOf(random)
      if (other === scenario) assert.ok(image.includes(content), `layer ${i} is not in the image`)
    }
  }
}

/** Lets two layers through, and holds up the others in the middle for the first host that reads them. */
async function holdUp(scenario: Scenario): Promise<{ heldUp: () => Promise<void> }> {
  const [, , third, fourth] = layersOf[scenario]!
  await registry.addFault({
    path: new RegExp(`${third!.descriptor.digest}|${fourth!.descriptor.digest}`),
    method: 'GET',
    times: 2,
    stallAfterBytes: layerBytes / 2,
  })
  return {
    heldUp: async () => {
      await eventually(
        'the last layers are held up',
        async () => ((await readOf(scenario)).whole.join() === '1,1,1,1' ? true : undefined),
        wait,
      )
    },
  }
}

const others = (steward: NodeProcess): NodeProcess[] => nodes.filter((node) => node !== steward)

test('a steward that has nothing for the registry refuses and says why, and the next one imports for all', async () => {
  const steward = nodes.find(({ host }) => host.name === stranger)!
  const image = await imageOf('denied', steward)
  const paths = await mountAll(image, others(steward))
  await login(steward)
  await checkReads('denied', paths)
  assert.deepEqual((await readOf('denied')).whole, [1, 1, 1, 1])
  const logs = await Promise.all(others(steward).map(async (node) => await node.log()))
  assert.match(logs.join(''), /steward does not import the image.*"code":"denied"/)
  const refusals = (await steward.log()).match(/registry that this host is not to import from for others/g)
  assert.equal(refusals?.length, 1)
})

test('four hosts mount an image at once: each layer is read from the registry once', async () => {
  const steward = nodes[1]!
  const paths = await mountAll(await imageOf('burst', steward), nodes)
  await checkReads('burst', paths)
  assert.deepEqual(await readOf('burst'), { whole: [1, 1, 1, 1], sentBytes: sizeOf(layersOf.burst!) })
  assert.match(await steward.log(), /image has been imported for a peer.*burst/)
  for (const node of nodes) assert.deepEqual((await node.status()).imports, [])
})

test('four hosts seed an image at once: all have all of it, for one copy from the registry', async () => {
  const image = await imageOf('seeds', nodes[2]!)
  await Promise.all(nodes.map(async (node) => await node.seed(image)))
  assert.deepEqual(await readOf('seeds'), { whole: [1, 1, 1, 1], sentBytes: sizeOf(layersOf.seeds!) })
  for (const node of nodes) {
    const { localBytes, sizeBytes } = (await node.status()).images.find(({ reference }) => reference === image)!
    assert.equal(localBytes, sizeBytes)
  }
})

test('hosts that mount an image in both formats at once read it once', async () => {
  const [steward, one, other] = nodes as [NodeProcess, NodeProcess, NodeProcess]
  const image = await imageOf('formats', steward)
  const directories = [one, other].map((node) => join(node.host.directory, 'formats'))
  for (const directory of directories) await mkdir(directory)
  await Promise.all([
    one.cli(['mount', image, directories[0]!]),
    other.cli(['mount', image, directories[1]!, '--format', 'erofs']),
  ])
  assert.deepEqual(await readOf('formats'), { whole: [1, 1, 1, 1], sentBytes: sizeOf(layersOf.formats!) })
})

test('a steward that is stopped is given up, and the others go on', async () => {
  const steward = nodes[3]!
  const image = await imageOf('stalled', steward)
  const { heldUp } = await holdUp('stalled')
  const mounting = mountAll(image, others(steward))
  await heldUp()
  const { imports } = await steward.status()
  assert.deepEqual(
    imports.map(({ reference, forPeers }) => ({ reference, forPeers })),
    [{ reference: image, forPeers: 3 }],
  )
  assert.ok(imports[0]!.doneBytes > 0 && imports[0]!.doneBytes < imports[0]!.totalBytes)
  const pid = await steward.signalDaemon('SIGSTOP')
  const paths = await mounting
  process.kill(pid, 'SIGCONT')
  await allMet()
  await checkReads('stalled', paths)
})

test('a steward is killed in the middle: the others finish, and read again no more than the layers that it had not finished', async () => {
  const steward = nodes[0]!
  // The next has been silent, not long ago.
  const image = await imageOf('killed', steward, nodes[3])
  const before = new Map(
    await Promise.all(others(steward).map(async (node) => [node, (await node.status()).chunks] as const)),
  )
  const { heldUp } = await holdUp('killed')
  const mounting = mountAll(image, others(steward))
  await heldUp()
  // Two of those who wait keep what is known of the finished layers: of each, its windows are a chunk.
  await eventually(
    'both finished layers are known to others',
    async () => {
      const now = await Promise.all(
        others(steward).map(async (node) => (await node.status()).chunks - before.get(node)!),
      )
      return now.filter((more) => more >= 2).length === 2 ? true : undefined
    },
    wait,
  )
  const pid = await steward.killDaemon()
  const paths = await mounting
  await steward.whenStatus('is back', ({ daemonPid }) => daemonPid !== pid, wait)
  await allMet()
  await checkReads('killed', paths)
  const { whole, sentBytes } = await readOf('killed')
  assert.deepEqual(whole, [1, 1, 2, 2])
  const [first, second, ...unfinished] = layersOf.killed!
  const most = sizeOf([first!, second!]) + 2 * sizeOf(unfinished)
  assert.ok(sentBytes <= most, `${sentBytes} bytes sent, ${most} at most`)
})
