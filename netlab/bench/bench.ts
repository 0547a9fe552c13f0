import { copyFile, open, rm, stat } from 'node:fs/promises'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { callControl } from '../hosts/control-call.ts'
import { readWithFio, type ReadPattern } from './fio.ts'
import { measureBoots } from './boots.ts'
import { measureImports } from './imports.ts'
import { measureTrees } from './trees.ts'
import { startEmpty } from '../hosts/empty-node.ts'
import { debianImages, oddImages, type LabImage } from '../images/images.ts'
import { formatMeasurements, measurement, type Measurement } from './measurement.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { run } from '../hosts/process.ts'
import { Registry } from '../registry/registry.ts'
import { measureTcp } from './tcp-stream.ts'
import { alternate, milliseconds, seconds } from './timing.ts'

const meetTimeoutMs = 20_000
const bytesPerMegabyte = 1e6

interface Bench {
  network: Network
  registry: Registry
  /** The image, as hosts name it. */
  reference: string
  runs: number
}

const { values: args } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '5' },
    /** A hand-made image of a few megabytes instead of the Debian one. */
    small: { type: 'boolean', default: false },
  },
})
const note = (line: string): void => void process.stderr.write(`bench: ${line}\n`)

note('preparing the image')
const images = args.small ? await smallImages() : await debianImages()
const measurements = await measureAll(images, Number(args.runs))
if (args.json) {
  const machine = { cores: availableParallelism(), cpu: cpus()[0]?.model, node: process.version }
  process.stdout.write(`${JSON.stringify({ machine, image: images.gzip.tag, measurements }, undefined, 2)}\n`)
} else {
  process.stdout.write(`${formatMeasurements(measurements)}\n`)
}

async function smallImages(): Promise<{ packages: LabImage; gzip: LabImage }> {
  const { lower, both } = await oddImages()
  return { packages: lower, gzip: both }
}

async function measureAll(
  { packages, gzip }: { packages: LabImage; gzip: LabImage },
  runs: number,
): Promise<Measurement[]> {
  await using network = await Network.create()
  const registry = await Registry.start(await network.addHost('registry'))
  const reference = await registry.push(gzip, 'lab/image:1')
  const bench = { network, registry, reference, runs }
  note('import')
  const imports = await measureImports(network, registry, packages, runs)
  const a = await NodeProcess.start(await network.addHost('a'), { insecureRegistries: [registry.authority] })
  await a.seed(reference)
  note('reads with everything local')
  const reads = await measureLocalReads(bench, a)
  note('from peer to peer')
  const peers = await measurePeers(bench, a)
  await a.stop()
  note('trees and drives')
  const trees = await measureTrees(network, runs)
  note('boots')
  const boots = await measureBoots(runs)
  return [...imports, ...reads, ...peers, ...trees, ...boots]
}

/** Reads through the mount on a host that has every chunk, against the same file on the host's own filesystem. */
async function measureLocalReads({ network, runs, reference }: Bench, node: NodeProcess): Promise<Measurement[]> {
  const directory = join(node.host.directory, 'mnt')
  const { rootfs } = await node.mount(reference, directory)
  const copy = join(network.directory, 'copy.img')
  await copyFile(rootfs, copy)
  await run('sync', [])
  const patterns: ReadPattern[] = ['sequential', 'random']
  const cases = patterns.flatMap((pattern) =>
    [true, false].map((cold) => ({ pattern, cold, mounted: [] as number[], native: [] as number[] })),
  )
  for (const { pattern, cold, mounted, native } of cases) {
    const scale = pattern === 'sequential' ? bytesPerMegabyte : 1
    const read = async (path: string, into: number[]): Promise<void> => {
      if (!cold) await run('cp', [path, '/dev/null'])
      into.push((await readWithFio(node.host, path, { pattern, cold })) / scale)
    }
    await alternate(
      runs,
      async () => await read(rootfs, mounted),
      async () => await read(copy, native),
    )
  }
  await node.unmount(directory)
  await rm(copy)
  return cases.map(({ pattern, cold, mounted, native }) =>
    measurement(
      `${pattern === 'sequential' ? 'sequential' : '4 KiB random'} read, all local, ${cold ? 'cold' : 'warm'}`,
      pattern === 'sequential' ? 'MB/s' : '1/s',
      mounted,
      { name: 'file on the host', values: native },
    ),
  )
}

/** An empty host beside one that has everything. */
async function measurePeers({ network, registry, reference, runs }: Bench, a: NodeProcess): Promise<Measurement[]> {
  const host = await network.addHost('b')
  const times = {
    firstMount: [] as number[],
    firstByte: [] as number[],
    known: [] as number[],
    control: [] as number[],
  }
  const rates = { peer: [] as number[], tcp: [] as number[] }
  let transferBytes = bytesPerMegabyte
  const directory = join(host.directory, 'mnt')
  const readOnB = async (): Promise<void> => {
    const node = await startEmpty(host, { bootstrap: [a], insecureRegistries: [registry.authority] })
    await node.whenStatus('has met A', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs })
    let rootfs = ''
    times.firstMount.push(await milliseconds(async () => ({ rootfs } = await node.mount(reference, directory))))
    times.firstByte.push(await milliseconds(async () => await readPage(rootfs)))
    const before = (await node.status()).fetched.peer.bytes
    const elapsed = await seconds(
      async () => await host.run('dd', [`if=${rootfs}`, 'of=/dev/null', 'bs=1M', 'status=none']),
    )
    transferBytes = (await node.status()).fetched.peer.bytes - before
    rates.peer.push(transferBytes / bytesPerMegabyte / elapsed)
    await node.unmount(directory)
    times.known.push(await milliseconds(async () => await node.mount(reference, directory)))
    await node.unmount(directory)
    times.control.push(
      await milliseconds(async () => await callControl(node.controlSocket, '/mount', { image: reference, directory })),
    )
    await node.unmount(directory)
    await node.stop()
  }
  const rawTcp = async (): Promise<void> => {
    rates.tcp.push((await measureTcp(a.host, host, transferBytes)) / bytesPerMegabyte)
  }
  await alternate(runs, readOnB, rawTcp)
  return [
    measurement('from peer to peer, one cold reader', 'MB/s', rates.peer, { name: 'raw TCP', values: rates.tcp }),
    measurement('mount on an empty host, whole process', 'ms', times.firstMount),
    measurement('first 4 KiB from a peer after that', 'ms', times.firstByte),
    measurement('mount of a known image, whole process', 'ms', times.known),
    measurement('mount of a known image, control socket', 'ms', times.control),
  ]
}

async function readPage(path: string): Promise<void> {
  const { size } = await stat(path)
  await using file = await open(path)
  await file.read(Buffer.alloc(4096), 0, 4096, Math.floor(size / 2 / 4096) * 4096)
}
