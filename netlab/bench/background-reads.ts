import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { createRandom } from '../../test/support/random.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import type { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { writeWeightsImage, writeWeightsLayout } from '../images/weights-image.ts'
import { Registry } from '../registry/registry.ts'
import { cpuSecondsOf } from './cpu-time.ts'
import { LoopDelay } from './loop-delay.ts'
import { measurement, type Measurement } from './measurement.ts'
import { alternate } from './timing.ts'

const meetTimeoutMs = 30_000
const chunkBytes = 256 * 1024
/** A read begins so often (ms), however long those before take: a machine that starts something reads so. */
const paceMs = 50
/** Reads without a seed: six seconds of them. */
const readsAlone = 120
/** Each read is of another chunk, and every other chunk is left out, so that nothing is read ahead. */
const strideBytes = 2 * chunkBytes
const maxReads = 480
const readBytes = { min: 4 * 1024, max: 128 * 1024 } as const

export interface BackgroundBenchOptions {
  runs: number
  /** Size of the image that is seeded. */
  mebibytes: number
  /** Rate of the hosts' links. */
  rateBitsPerSecond: number
  /** Whether a seed from a registry is measured, too. */
  withRegistry: boolean
  /** `--seed-limit` of the host that reads. */
  seedLimit: string
}

/** One value for each run. */
class Samples {
  readonly p50: number[] = []
  readonly p99: number[] = []
  readonly reads: number[] = []
  readonly seedSeconds: number[] = []
  /** CPU seconds of a second. */
  readonly readerCpu: number[] = []
  readonly holderCpu: number[] = []
  readonly readerDelay: number[] = []
  readonly holderDelay: number[] = []
}

/**
 * Measures reads of 4 to 128 KiB that miss on a host and come from a peer, at a steady pace: alone, beside a seed from that peer, and
 * beside one from a registry.
 */
export async function measureBackground(network: Network, options: BackgroundBenchOptions): Promise<Measurement[]> {
  const { mebibytes, rateBitsPerSecond, withRegistry } = options
  const link = { rateBitsPerSecond }
  const [a, b] = [await network.addHost('holder', link), await network.addHost('reader', link)]
  const weights = await writeWeightsImage(network.directory, { mebibytes, seed: 1 })
  const read = await writeWeightsImage(network.directory, {
    mebibytes: Math.ceil((maxReads * strideBytes) / 2 ** 20) + 1,
    seed: 2,
  })
  const registry = withRegistry ? await registryWith(network, mebibytes) : undefined
  {
    await using holder = await NodeProcess.startEmpty(a)
    await holder.cli(['import', weights, 'weights'])
    await holder.cli(['import', read, 'read'])
  }
  const ways: { name: string; image?: string; samples: Samples }[] = [
    { name: 'alone', samples: new Samples() },
    { name: 'beside a seed from the peer', image: 'local:weights', samples: new Samples() },
    ...(registry ? [{ name: 'beside a seed from a registry', image: registry.reference, samples: new Samples() }] : []),
  ]
  await alternate(
    options.runs,
    ...ways.map(({ image, samples }) => async () => {
      await measureOnce({ a, b }, { image, samples, registry: registry?.authority, seedLimit: options.seedLimit })
    }),
  )
  const [{ samples: alone }] = ways as [(typeof ways)[0]]
  return ways.flatMap(({ name, image, samples }) => {
    const against = (values: number[]): { name: string; values: number[] } | undefined =>
      image === undefined ? undefined : { name: 'alone', values }
    return [
      measurement(`read that misses, ${name}, p50`, 'ms', samples.p50, against(alone.p50)),
      measurement(`read that misses, ${name}, p99`, 'ms', samples.p99, against(alone.p99)),
      measurement(`CPU of the reader in a second, ${name}`, 's', samples.readerCpu, against(alone.readerCpu)),
      measurement(`CPU of the holder in a second, ${name}`, 's', samples.holderCpu, against(alone.holderCpu)),
      measurement(
        `event loop delay of the reader, ${name}, p99`,
        'ms',
        samples.readerDelay,
        against(alone.readerDelay),
      ),
      measurement(
        `event loop delay of the holder, ${name}, p99`,
        'ms',
        samples.holderDelay,
        against(alone.holderDelay),
      ),
      ...(image === undefined ? [] : [measurement(`time of the seed, ${name}`, 's', samples.seedSeconds)]),
    ]
  })
}

async function registryWith(network: Network, mebibytes: number): Promise<{ reference: string; authority: string }> {
  const registry = await Registry.start(await network.addHost('registry'))
  const layout = await writeWeightsLayout(network.directory, { mebibytes, compression: 'gzip' })
  const reference = await registry.push(layout, 'lab/seeded:1')
  return { reference, authority: registry.authority }
}

async function measureOnce(
  { a, b }: { a: LabHost; b: LabHost },
  {
    image,
    samples,
    registry,
    seedLimit,
  }: { image: string | undefined; samples: Samples; registry: string | undefined; seedLimit: string },
): Promise<void> {
  const delays = { holder: new LoopDelay(a), reader: new LoopDelay(b) }
  // It has no word of the registry, so the reader imports from there itself.
  await using holder = await NodeProcess.start(a, { env: delays.holder.env })
  await using reader = await NodeProcess.startEmpty(b, {
    bootstrap: [holder],
    insecureRegistries: registry === undefined ? [] : [registry],
    env: { ...delays.reader.env, P2PFS_SEED_LIMIT: seedLimit },
  })
  await reader.whenStatus('has met the holder', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs })
  const directory = join(b.directory, 'mnt')
  const { rootfs } = await reader.mount('local:read', directory)
  await Promise.all([delays.holder.reset(), delays.reader.reset()])
  const before = { reader: cpuSecondsOf(reader.daemonPid), holder: cpuSecondsOf(holder.daemonPid) }
  const startedAtMs = performance.now()
  const seconds = (): number => (performance.now() - startedAtMs) / 1000
  let isSeeding = image !== undefined
  const seeding =
    image === undefined
      ? undefined
      : reader.seed(image).finally(() => {
          isSeeding = false
          samples.seedSeconds.push(seconds())
        })
  const times = await readAtPace(rootfs, (count) => (image === undefined ? count < readsAlone : isSeeding))
  samples.readerCpu.push((cpuSecondsOf(reader.daemonPid) - before.reader) / seconds())
  samples.holderCpu.push((cpuSecondsOf(holder.daemonPid) - before.holder) / seconds())
  await seeding
  samples.readerDelay.push(await delays.reader.percentile99())
  samples.holderDelay.push(await delays.holder.percentile99())
  samples.reads.push(times.length)
  samples.p50.push(percentile(times, 0.5))
  samples.p99.push(percentile(times, 0.99))
  await reader.unmount(directory)
}

/** Reads from the end to the beginning. @returns how long each has taken (ms) */
async function readAtPace(path: string, goesOn: (count: number) => boolean): Promise<number[]> {
  const random = createRandom(1)
  await using file = await open(path)
  const reads: Promise<number>[] = []
  const startedAtMs = performance.now()
  for (let i = 0; i < maxReads && goesOn(i); i++) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, startedAtMs + i * paceMs - performance.now())))
    const lengthBytes = readBytes.min * (1 + random.below(readBytes.max / readBytes.min))
    reads.push(timeOfRead(file, (maxReads - i) * strideBytes, lengthBytes))
  }
  return await Promise.all(reads)
}

async function timeOfRead(
  file: Awaited<ReturnType<typeof open>>,
  offset: number,
  lengthBytes: number,
): Promise<number> {
  const startedAtMs = performance.now()
  await file.read(Buffer.allocUnsafe(lengthBytes), 0, lengthBytes, offset)
  return performance.now() - startedAtMs
}

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((first, second) => first - second)[Math.floor(values.length * share)] ?? Number.NaN
}
