import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { debianImages, oddImages } from '../images/images.ts'
import type { LabImage } from '../images/lab-image.ts'
import { Registry } from '../registry/registry.ts'
import { measureBoots } from './boots.ts'
import { measureImports } from './imports.ts'
import { measureLocalReads } from './local-reads.ts'
import { formatMeasurements, type Measurement } from './measurement.ts'
import { measurePeers } from './peer-transfers.ts'
import { measureTrees } from './trees.ts'

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
  const a = await NodeProcess.start(await network.addHost('a'), {
    insecureRegistries: [registry.authority],
    env: { P2PFS_NATIVE_READS: 'all' },
  })
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
