import { parseArgs } from 'node:util'
import { Network } from '../hosts/network.ts'
import { measureBulk } from './bulk-transfers.ts'
import { formatMeasurements } from './measurement.ts'

const { values: args } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '3' },
    /** Size of the file of weights (MiB). */
    size: { type: 'string', default: '1600' },
    /** Rate of the hosts' links (Mbit/s); not limited by default. */
    rate: { type: 'string' },
    /** Reads that somebody waits for. */
    reads: { type: 'string', default: '200' },
  },
})

await using network = await Network.create()
const measurements = await measureBulk(network, {
  runs: Number(args.runs),
  mebibytes: Number(args.size),
  demandReads: Number(args.reads),
  ...(args.rate !== undefined && { rateBitsPerSecond: Number(args.rate) * 1e6 }),
})
process.stdout.write(
  args.json ? `${JSON.stringify({ measurements }, undefined, 2)}\n` : `${formatMeasurements(measurements)}\n`,
)
