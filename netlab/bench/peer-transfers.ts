import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { callControl } from '../hosts/control-call.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import type { Bench } from './bench-lab.ts'
import { measurement, type Measurement } from './measurement.ts'
import { measureTcp } from './tcp-stream.ts'
import { alternate, milliseconds, seconds } from './timing.ts'

const meetTimeoutMs = 20_000
const bytesPerMegabyte = 1e6

/** Measures an empty host beside one that has everything. */
export async function measurePeers(
  { network, registry, reference, runs }: Bench,
  a: NodeProcess,
): Promise<Measurement[]> {
  const host = await network.addHost('b')
  const times = {
    firstMount: [] as number[],
    firstByte: [] as number[],
    known: [] as number[],
    control: [] as number[],
  }
  const rates = { peer: [] as number[], tcp: [] as number[] }
  let transferBytes = bytesPerMegabyte
  const directory = join(host.directory, 'mnt')
  const readOnB = async (): Promise<void> => {
    const node = await NodeProcess.startEmpty(host, { bootstrap: [a], insecureRegistries: [registry.authority] })
    await node.whenStatus('has met A', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs })
    let rootfs = ''
    times.firstMount.push(await milliseconds(async () => ({ rootfs } = await node.mount(reference, directory))))
    times.firstByte.push(await milliseconds(async () => await readPage(rootfs)))
    const before = (await node.status()).fetched.peer.bytes
    const elapsed = await seconds(
      async () => await host.run('dd', [`if=${rootfs}`, 'of=/dev/null', 'bs=1M', 'status=none']),
    )
    transferBytes = (await node.status()).fetched.peer.bytes - before
    rates.peer.push(transferBytes / bytesPerMegabyte / elapsed)
    await node.unmount(directory)
    times.known.push(await milliseconds(async () => await node.mount(reference, directory)))
    await node.unmount(directory)
    times.control.push(
      await milliseconds(
        async () => await callControl(node.controlSocket, 'POST /v1/mounts', { image: reference, directory }),
      ),
    )
    await node.unmount(directory)
    await node.stop()
  }
  const rawTcp = async (): Promise<void> => {
    rates.tcp.push((await measureTcp(a.host, host, transferBytes)) / bytesPerMegabyte)
  }
  await alternate(runs, readOnB, rawTcp)
  return [
    measurement('from peer to peer, one cold reader', 'MB/s', rates.peer, { name: 'raw TCP', values: rates.tcp }),
    measurement('mount on an empty host, whole process', 'ms', times.firstMount),
    measurement('first 4 KiB from a peer after that', 'ms', times.firstByte),
    measurement('mount of a known image, whole process', 'ms', times.known),
    measurement('mount of a known image, control socket', 'ms', times.control),
  ]
}

async function readPage(path: string): Promise<void> {
  const { size } = await stat(path)
  await using file = await open(path)
  await file.read(Buffer.alloc(4096), 0, 4096, Math.floor(size / 2 / 4096) * 4096)
}
