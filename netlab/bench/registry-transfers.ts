import { mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { LayerCompression } from '../../test/support/oci-layout.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import type { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { run } from '../hosts/process.ts'
import { writeWeightsLayout } from '../images/weights-image.ts'
import { Registry } from '../registry/registry.ts'
import { cpuSecondsOf, cpuSecondsOfTimes } from './cpu-time.ts'
import { measurement, type Measurement } from './measurement.ts'
import { alternate, seconds } from './timing.ts'

const bytesPerMegabyte = 1e6
const bytesPerGigabyte = 1e9

export interface RegistryBenchOptions {
  runs: number
  /** Size of the file of weights. */
  mebibytes: number
  /** Rate of the host's link. */
  rateBitsPerSecond: number
  compressions: readonly LayerCompression[]
}

/** The samples of one compression. */
interface Samples {
  seed: number[]
  read: number[]
  unpack: number[]
  seedCpu: number[]
  unpackCpu: number[]
  /** p99 of the event loop's delay in each seed (ms). */
  delay: number[]
  peak: number[]
}

/** Measures how an image of weights comes to a host that has only the registry: seeded, read in a tree, and unpacked. */
export async function measureRegistry(network: Network, options: RegistryBenchOptions): Promise<Measurement[]> {
  const { compressions, rateBitsPerSecond, runs, mebibytes } = options
  const registry = await Registry.start(await network.addHost('registry'))
  const host = await network.addHost('puller', { rateBitsPerSecond })
  const measured: Measurement[] = []
  for (const compression of compressions) {
    const layout = await writeWeightsLayout(network.directory, { mebibytes, compression })
    const reference = await registry.push(layout, `lab/weights-${compression}:1`)
    await rm(layout.layoutDirectory, { recursive: true })
    const samples: Samples = { seed: [], read: [], unpack: [], seedCpu: [], unpackCpu: [], delay: [], peak: [] }
    await alternate(
      runs,
      async () => await seed(host, registry, reference, samples),
      async () => await unpack(host, reference, samples, { compression, mebibytes }),
      async () => await readInTree(host, registry, reference, samples),
    )
    measured.push(...rowsOf(compression, samples))
  }
  return measured
}

function rowsOf(compression: LayerCompression, samples: Samples): Measurement[] {
  const layer = compression === 'none' ? 'plain tar' : compression
  const { name } = pulls[compression]
  const against = (values: number[]): { name: string; values: number[] } => ({ name, values })
  return [
    measurement(`${layer}: seed from the registry`, 's', samples.seed, against(samples.unpack)),
    measurement(`${layer}: mount as a tree and read the file`, 's', samples.read, against(samples.unpack)),
    measurement(`${layer}: CPU for a GB of the file`, 's', samples.seedCpu, against(samples.unpackCpu)),
    measurement(`${layer}: delay of the event loop meanwhile, p99`, 'ms', samples.delay),
    measurement(`${layer}: peak memory of the daemon`, 'MB', samples.peak),
  ]
}

async function startEmpty(host: LabHost, registry: Registry): Promise<NodeProcess> {
  return await NodeProcess.startEmpty(host, { insecureRegistries: [registry.authority] })
}

async function seed(host: LabHost, registry: Registry, reference: string, samples: Samples): Promise<void> {
  await using node = await startEmpty(host, registry)
  const pid = node.daemonPid
  const before = cpuSecondsOf(pid)
  const result = { sizeBytes: 0 }
  samples.seed.push(await seconds(async () => Object.assign(result, await node.seed(reference))))
  samples.seedCpu.push(((cpuSecondsOf(pid) - before) / result.sizeBytes) * bytesPerGigabyte)
  samples.peak.push((await node.peakMemoryBytes()) / bytesPerMegabyte)
  samples.delay.push((await node.status()).eventLoopDelayMs.p99)
}

async function readInTree(host: LabHost, registry: Registry, reference: string, samples: Samples): Promise<void> {
  await using node = await startEmpty(host, registry)
  const directory = join(host.directory, 'mnt')
  await mkdir(directory, { recursive: true })
  samples.read.push(
    await seconds(async () => {
      await node.cli(['mount', reference, directory, '--as', 'tree', '--json'])
      await host.run('dd', [`if=${join(directory, 'model.safetensors')}`, 'of=/dev/null', 'bs=1M', 'status=none'])
    }),
  )
  await node.unmount(directory)
}

const copy = 'skopeo --insecure-policy copy --quiet --src-tls-verify=false "docker://$1" "oci:$2/layout:image"'

/** Copies the image as it is, and unpacks it. umoci 0.4 does not know zstd: its layer is the largest blob. */
const pulls: Record<LayerCompression, { name: string; script: string }> = {
  gzip: { name: 'skopeo copy + umoci unpack', script: `${copy} && umoci unpack --image "$2/layout:image" "$2/bundle"` },
  none: { name: 'skopeo copy + umoci unpack', script: `${copy} && umoci unpack --image "$2/layout:image" "$2/bundle"` },
  zstd: {
    name: 'skopeo copy + zstd | tar',
    script: `${copy} && mkdir -p "$2/bundle/rootfs" &&
      zstd -dcq "$(ls -S "$2"/layout/blobs/sha256/* | head -n 1)" | tar -x -C "$2/bundle/rootfs"`,
  },
}

async function unpack(
  host: LabHost,
  reference: string,
  samples: Samples,
  { compression, mebibytes }: { compression: LayerCompression; mebibytes: number },
): Promise<void> {
  const script = `(${pulls[compression].script}) >&2 && times`
  const directory = join(host.directory, 'pull')
  await mkdir(directory)
  await run('sync', [])
  let output = ''
  samples.unpack.push(
    await seconds(async () => {
      output = (await host.run('bash', ['-c', script, 'bash', reference, directory])).stdout.toString()
    }),
  )
  const { size } = await stat(join(directory, 'bundle', 'rootfs', 'model.safetensors'))
  if (size !== mebibytes * 2 ** 20) throw new TypeError(`unpacked ${size} bytes`)
  samples.unpackCpu.push((cpuSecondsOfTimes(output) / size) * bytesPerGigabyte)
  await rm(directory, { recursive: true })
}
