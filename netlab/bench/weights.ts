import { parseArgs } from 'node:util'
import type { LayerCompression } from '../../test/support/oci-layout.ts'
import { Network } from '../hosts/network.ts'
import { formatMeasurements } from './measurement.ts'
import { measureRegistry } from './registry-transfers.ts'

const { values: args } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '3' },
    /** Size of the file of weights (MiB). */
    size: { type: 'string', default: '1600' },
    /** Rate of the host's link (Mbit/s). */
    rate: { type: 'string', default: '1000' },
    /** How the layer is compressed; can be given several times. */
    layer: { type: 'string', multiple: true, default: ['gzip', 'zstd', 'none'] },
  },
})

await using network = await Network.create()
const measurements = await measureRegistry(network, {
  runs: Number(args.runs),
  mebibytes: Number(args.size),
  rateBitsPerSecond: Number(args.rate) * 1e6,
  compressions: args.layer as LayerCompression[],
})
process.stdout.write(
  args.json ? `${JSON.stringify({ measurements }, undefined, 2)}\n` : `${formatMeasurements(measurements)}\n`,
)
