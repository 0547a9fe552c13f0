import { mkdir, open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { LabHost } from '../hosts/lab-host.ts'
import type { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { writeWeightsImage } from '../images/weights-image.ts'
import { LoopDelay } from './loop-delay.ts'
import { cpuSecondsOf } from './cpu-time.ts'
import { measurement, type Measurement } from './measurement.ts'
import { measureTcp } from './tcp-stream.ts'
import { alternate, milliseconds, seconds } from './timing.ts'

/** How chunks come from a peer: the values of `--bulk`. */
export const bulkWays = ['on', 'plain', 'off'] as const
type BulkWay = (typeof bulkWays)[number]

const meetTimeoutMs = 30_000
const bytesPerMegabyte = 1e6
const chunkBytes = 256 * 1024

export interface BulkBenchOptions {
  runs: number
  /** Size of the file of weights. */
  mebibytes: number
  /** Rate of both hosts' links; not limited by default. */
  rateBitsPerSecond?: number
  /** Reads that somebody waits for, with and without a seed beside them. */
  demandReads: number
}

/** The samples of one way. */
interface Samples {
  seed: number[]
  read: number[]
  firstByteMs: number[]
  senderCpu: number[]
  receiverCpu: number[]
  alone: number[]
  beside: number[]
  senderDelay: number[]
  receiverDelay: number[]
}

/** Measures how an image of weights comes from one peer to a cold host, in each way. */
export async function measureBulk(network: Network, options: BulkBenchOptions): Promise<Measurement[]> {
  const link = options.rateBitsPerSecond === undefined ? {} : { rateBitsPerSecond: options.rateBitsPerSecond }
  const hosts = { a: await network.addHost('bulk-a', link), b: await network.addHost('bulk-b', link) }
  const weights = await writeWeightsImage(network.directory, { mebibytes: options.mebibytes, seed: 1 })
  const other = await writeWeightsImage(network.directory, {
    mebibytes: Math.ceil((options.demandReads * 2 * chunkBytes) / 2 ** 20) + 1,
    seed: 2,
  })
  {
    await using a = await NodeProcess.startEmpty(hosts.a)
    await a.cli(['import', weights, 'weights'])
    await a.cli(['import', other, 'other'])
  }
  const samples = Object.fromEntries(
    bulkWays.map((way) => [
      way,
      {
        seed: [],
        read: [],
        firstByteMs: [],
        senderCpu: [],
        receiverCpu: [],
        alone: [],
        beside: [],
        senderDelay: [],
        receiverDelay: [],
      } satisfies Samples,
    ]),
  ) as unknown as Record<BulkWay, Samples>
  const tcp: number[] = []
  await alternate(
    options.runs,
    async () => void tcp.push((await measureTcp(hosts.a, hosts.b, options.mebibytes * 2 ** 20)) / bytesPerMegabyte),
    ...bulkWays.map((way) => async () => await measureWay(hosts, way, samples[way], options.demandReads)),
  )
  const rows = (name: string, unit: Measurement['unit'], pick: (samples: Samples) => number[]): Measurement[] =>
    bulkWays.slice(0, 2).map((way) =>
      measurement(`${name}, --bulk ${way}`, unit, pick(samples[way]), {
        name: '--bulk off',
        values: pick(samples.off),
      }),
    )
  return [
    measurement('raw TCP between the two', 'MB/s', tcp),
    ...rows('seed from a peer, verified and stored', 'MB/s', ({ seed }) => seed),
    ...rows('CPU of the sender for a GB of it', 's', ({ senderCpu }) => senderCpu),
    ...rows('CPU of the receiver for a GB of it', 's', ({ receiverCpu }) => receiverCpu),
    ...rows('event loop delay of the sender meanwhile, p99', 'ms', ({ senderDelay }) => senderDelay),
    ...rows('event loop delay of the receiver meanwhile, p99', 'ms', ({ receiverDelay }) => receiverDelay),
    ...rows('file of weights read in a tree of a cold host', 'MB/s', ({ read }) => read),
    ...rows('first byte of it', 'ms', ({ firstByteMs }) => firstByteMs),
    ...rows('read that waits for a peer, p99', 'ms', ({ alone }) => [percentile99(alone)]),
    ...rows('the same beside a seed from that peer, p99', 'ms', ({ beside }) => [percentile99(beside)]),
  ]
}

async function measureWay(
  { a, b }: { a: LabHost; b: LabHost },
  way: BulkWay,
  samples: Samples,
  demandReads: number,
): Promise<void> {
  const env = { P2PFS_BULK: way }
  const delays = { holder: new LoopDelay(a), asker: new LoopDelay(b) }
  await using holder = await NodeProcess.start(a, { env: { ...env, ...delays.holder.env } })
  const startAsker = async (): Promise<NodeProcess> => {
    const node = await NodeProcess.startEmpty(b, { bootstrap: [holder], env: { ...env, ...delays.asker.env } })
    await node.whenStatus('has met the holder', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs })
    return node
  }
  const directory = join(b.directory, 'mnt')
  {
    await using asker = await startAsker()
    await Promise.all([delays.holder.reset(), delays.asker.reset()])
    const before = { holder: cpuSecondsOf(holder.daemonPid), asker: cpuSecondsOf(asker.daemonPid) }
    const elapsed = await seconds(async () => await asker.seed('local:weights'))
    const { bytes } = (await asker.status()).fetched.peer
    samples.seed.push(bytes / bytesPerMegabyte / elapsed)
    samples.senderCpu.push(((cpuSecondsOf(holder.daemonPid) - before.holder) / bytes) * 1e9)
    samples.receiverCpu.push(((cpuSecondsOf(asker.daemonPid) - before.asker) / bytes) * 1e9)
    samples.senderDelay.push(await delays.holder.percentile99())
    samples.receiverDelay.push(await delays.asker.percentile99())
  }
  {
    await using asker = await startAsker()
    await mkdir(directory, { recursive: true })
    await asker.cli(['mount', 'local:weights', directory, '--as', 'tree', '--json'])
    const file = join(directory, 'model.safetensors')
    samples.firstByteMs.push(await milliseconds(async () => await readAt(file, 0)))
    const { size } = await stat(file)
    const elapsed = await seconds(async () => await b.run('dd', [`if=${file}`, 'of=/dev/null', 'bs=1M', 'status=none']))
    samples.read.push(size / bytesPerMegabyte / elapsed)
    await asker.unmount(directory)
  }
  {
    await using asker = await startAsker()
    const { rootfs } = await asker.mount('local:other', directory)
    samples.alone.push(...(await readChunks(rootfs, 0, demandReads)))
    let isSeeding = true
    const seeding = asker.seed('local:weights').finally(() => (isSeeding = false))
    samples.beside.push(...(await readChunks(rootfs, demandReads, demandReads, () => isSeeding)))
    await seeding
    await asker.unmount(directory)
  }
}

/** Reads one page of each chunk, every other one from the last to the first, so that nothing is read ahead. @returns ms */
async function readChunks(
  path: string,
  first: number,
  count: number,
  goesOn: () => boolean = () => true,
): Promise<number[]> {
  const times: number[] = []
  for (let i = first + count; i > first && goesOn(); i--)
    times.push(await milliseconds(async () => await readAt(path, i * 2 * chunkBytes)))
  return times
}

async function readAt(path: string, offset: number): Promise<void> {
  await using file = await open(path)
  await file.read(Buffer.alloc(4096), 0, 4096, offset)
}

function percentile99(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? Number.NaN
}
