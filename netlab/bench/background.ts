import { parseArgs } from 'node:util'
import { Network } from '../hosts/network.ts'
import { measureBackground } from './background-reads.ts'
import { formatMeasurements } from './measurement.ts'

const { values: args } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '3' },
    /** Size of the image that is seeded (MiB). */
    size: { type: 'string', default: '477' },
    /** Rate of the hosts' links (Mbit/s). */
    rate: { type: 'string', default: '1000' },
    /** Seeds from a registry, too. */
    registry: { type: 'boolean', default: false },
    /** `--seed-limit` of the host. */
    'seed-limit': { type: 'string', default: 'none' },
  },
})

await using network = await Network.create()
const measurements = await measureBackground(network, {
  runs: Number(args.runs),
  mebibytes: Number(args.size),
  rateBitsPerSecond: Number(args.rate) * 1e6,
  withRegistry: args.registry,
  seedLimit: args['seed-limit'],
})
process.stdout.write(
  args.json ? `${JSON.stringify({ measurements }, undefined, 2)}\n` : `${formatMeasurements(measurements)}\n`,
)
