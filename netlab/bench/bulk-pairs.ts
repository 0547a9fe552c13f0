import type { LabHost } from '../hosts/lab-host.ts'
import type { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { writeWeightsImage } from '../images/weights-image.ts'
import { measurement, type Measurement } from './measurement.ts'
import { alternate, seconds } from './timing.ts'

const meetTimeoutMs = 30_000
const bytesPerMegabyte = 1e6
/** Two holders, and two readers. */
const pairs = 2

export interface BulkPairsOptions {
  runs: number
  /** Size of the file of weights. */
  mebibytes: number
  /** Rate of the link of each host. */
  rateBitsPerSecond: number
}

/**
 * Measures two cold hosts that seed an image from two holders at once, against what the links of the two can carry. The
 * readers are holders for each other as soon as they have something.
 */
export async function measurePairs(
  network: Network,
  { runs, mebibytes, rateBitsPerSecond }: BulkPairsOptions,
): Promise<Measurement[]> {
  const link = { rateBitsPerSecond }
  const holders: LabHost[] = []
  const readers: LabHost[] = []
  for (let i = 0; i < pairs; i++) {
    holders.push(await network.addHost(`pair-h${i}`, link))
    readers.push(await network.addHost(`pair-r${i}`, link))
  }
  const weights = await writeWeightsImage(network.directory, { mebibytes, seed: 3 })
  for (const host of holders) {
    await using node = await NodeProcess.startEmpty(host)
    await node.cli(['import', weights, 'weights'])
  }
  const ways = ['on', 'plain'] as const
  const rates: Record<(typeof ways)[number], number[]> = { on: [], plain: [] }
  const measure = async (way: (typeof ways)[number]): Promise<void> => {
    const env = { P2PFS_BULK: way }
    await using stack = new AsyncDisposableStack()
    const first = stack.use(await NodeProcess.start(holders[0]!, { env }))
    const bootstrap = [first, stack.use(await NodeProcess.start(holders[1]!, { env, bootstrap: [first] }))]
    const askers: NodeProcess[] = []
    for (const host of readers) askers.push(stack.use(await NodeProcess.startEmpty(host, { bootstrap, env })))
    for (const asker of askers)
      await asker.whenStatus('has met all others', ({ peers }) => peers.length === 2 * pairs - 1, {
        timeoutMs: meetTimeoutMs,
      })
    const elapsed = await seconds(
      async () => await Promise.all(askers.map(async (asker) => await asker.seed('local:weights'))),
    )
    let bytes = 0
    for (const asker of askers) bytes += (await asker.status()).fetched.peer.bytes
    rates[way].push(bytes / bytesPerMegabyte / elapsed)
  }
  await alternate(runs, ...ways.map((way) => async () => await measure(way)))
  const links = { name: 'both links', values: [(pairs * rateBitsPerSecond) / 8 / bytesPerMegabyte] }
  return ways.map((way) => measurement(`two seeds from two peers at once, --bulk ${way}`, 'MB/s', rates[way], links))
}
