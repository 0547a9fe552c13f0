import { parseArgs } from 'node:util'
import { Network } from '../hosts/network.ts'
import { measurePairs } from './bulk-pairs.ts'
import { measureReceivers } from './bulk-receivers.ts'
import { measureBulk } from './bulk-transfers.ts'
import { formatMeasurements, type Measurement } from './measurement.ts'

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
    /** So many readers of one holder at once instead, over links of --rate (1000 by default). */
    receivers: { type: 'string' },
  },
})

await using network = await Network.create()
const common = { runs: Number(args.runs), mebibytes: Number(args.size) }
const rateBitsPerSecond = args.rate === undefined ? undefined : Number(args.rate) * 1e6
const limited = { ...common, rateBitsPerSecond: rateBitsPerSecond ?? 1e9 }
const measure = async (): Promise<Measurement[]> => {
  if (args.pairs) return await measurePairs(network, limited)
  if (args.receivers !== undefined)
    return await measureReceivers(network, { ...limited, receivers: Number(args.receivers) })
  return await measureBulk(network, {
    ...common,
    demandReads: Number(args.reads),
    ...(rateBitsPerSecond !== undefined && { rateBitsPerSecond }),
  })
}
const measurements = await measure()
process.stdout.write(
  args.json ? `${JSON.stringify({ measurements }, undefined, 2)}\n` : `${formatMeasurements(measurements)}\n`,
)
