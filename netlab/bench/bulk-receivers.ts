import type { SeedResult } from '../../node/control/api.ts'
import { callControl } from '../hosts/control-call.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import type { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { writeWeightsImage } from '../images/weights-image.ts'
import { cpuSecondsOf } from './cpu-time.ts'
import { measurement, type Measurement } from './measurement.ts'

const meetTimeoutMs = 120_000
const bytesPerMegabyte = 1e6

export interface BulkReceiversOptions {
  runs: number
  /** How many hosts ask the one that holds the file. */
  receivers: number
  /** Size of the file of weights. */
  mebibytes: number
  /** Rate of the link of each host. */
  rateBitsPerSecond: number
}

/** Measures many cold hosts that seed an image from one holder, all at once. */
export async function measureReceivers(
  network: Network,
  { runs, receivers, mebibytes, rateBitsPerSecond }: BulkReceiversOptions,
): Promise<Measurement[]> {
  const link = { rateBitsPerSecond }
  const holderHost = await network.addHost('holder', link)
  const hosts: LabHost[] = []
  for (let i = 0; i < receivers; i++) hosts.push(await network.addHost(`receiver-${i}`, link))
  const weights = await writeWeightsImage(network.directory, { mebibytes, seed: 4 })
  {
    await using node = await NodeProcess.startEmpty(holderHost)
    await node.cli(['import', weights, 'weights'])
  }
  const samples = { first: [] as number[], last: [] as number[], given: [] as number[], cpu: [] as number[] }
  for (let run = 0; run < runs; run++) {
    await using stack = new AsyncDisposableStack()
    const holder = stack.use(await NodeProcess.start(holderHost))
    const nodes: NodeProcess[] = []
    for (const host of hosts) nodes.push(stack.use(await NodeProcess.startEmpty(host, { bootstrap: [holder] })))
    for (const node of nodes)
      await node.whenStatus('has met all others', ({ peers }) => peers.length === receivers, {
        timeoutMs: meetTimeoutMs,
      })
    const cpu = (): number => [holder, ...nodes].reduce((sum, { daemonPid }) => sum + cpuSecondsOf(daemonPid), 0)
    const cpuBefore = cpu()
    const startedAtMs = performance.now()
    const times = await Promise.all(
      nodes.map(async ({ controlSocket }) => {
        await callControl<SeedResult>(controlSocket, 'POST /v1/images/seed', { image: 'local:weights' })
        return (performance.now() - startedAtMs) / 1000
      }),
    )
    samples.first.push(Math.min(...times))
    samples.last.push(Math.max(...times))
    samples.cpu.push((cpu() - cpuBefore) / (receivers + 1))
    const { peers } = await holder.status()
    samples.given.push(peers.reduce((sum, { sent }) => sum + sent.bytes, 0) / (mebibytes * 2 ** 20))
    if (process.env['P2PFS_LAB_VERBOSE'] !== undefined) process.stderr.write(`${JSON.stringify(times)}\n`)
  }
  const what = `${receivers} hosts seed ${Math.round((mebibytes * 2 ** 20) / bytesPerMegabyte)} MB from one`
  return [
    measurement(`${what}: the first has all`, 's', samples.first),
    measurement(`${what}: the last has all`, 's', samples.last),
    measurement(`${what}: copies that the holder gave`, 'x', samples.given),
    measurement(`${what}: CPU of each daemon`, 's', samples.cpu),
  ]
}
