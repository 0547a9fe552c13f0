import { parseArgs } from 'node:util'
import { Network } from '../hosts/network.ts'
import { measurePairs } from './bulk-pairs.ts'
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
    /** Two readers of two holders at once instead, over links of --rate (1000 by default). */
    pairs: { type: 'boolean', default: false },
  },
})

await using network = await Network.create()
const common = { runs: Number(args.runs), mebibytes: Number(args.size) }
const rateBitsPerSecond = args.rate === undefined ? undefined : Number(args.rate) * 1e6
const measurements = args.pairs
  ? await measurePairs(network, { ...common, rateBitsPerSecond: rateBitsPerSecond ?? 1e9 })
  : await measureBulk(network, {
      ...common,
      demandReads: Number(args.reads),
      ...(rateBitsPerSecond !== undefined && { rateBitsPerSecond }),
    })
process.stdout.write(
  args.json ? `${JSON.stringify({ measurements }, undefined, 2)}\n` : `${formatMeasurements(measurements)}\n`,
)
