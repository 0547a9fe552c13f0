import { cp, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { callControl } from '../hosts/control-call.ts'
import { manyFiles } from '../images/many-files.ts'
import { measurement, type Measurement } from './measurement.ts'
import type { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { dropAllCaches } from '../hosts/page-cache.ts'
import { run } from '../hosts/process.ts'
import { alternate, milliseconds, seconds } from './timing.ts'

const name = 'local:many'
/** One takes a second, and now and then twice as long, for p2pfs and for the host's filesystem. */
const tarsPerRun = 3
const scratchBytes = 10 * 2 ** 30
/** The tree is ready to be read natively in seconds, on a busy machine (ms). */
const readyTimeoutMs = 120_000

/** Measures a host that has all of an image: reads of a tree of many small files, mounts, resets. */
export async function measureTrees(network: Network, runs: number): Promise<Measurement[]> {
  const host = await network.addHost('trees')
  const node = await NodeProcess.start(host)
  const [copy, tree] = [join(host.directory, 'copy'), join(host.directory, 'tree')]
  await cp(await manyFiles(), copy, { recursive: true, verbatimSymlinks: true })
  await mkdir(tree)
  await node.cli(['import', copy, name, '--format', 'erofs'])
  await node.cli(['seed', name])
  await node.whenStatus(
    'the image is ready',
    ({ images }) => images.some((image) => image.format === 'erofs' && image.isReadyForNative),
    {
      timeoutMs: readyTimeoutMs,
    },
  )
  await node.cli(['mount', name, tree, '--as', 'tree'])
  const tars = [
    await measureTar(tarsPerRun * runs, tree, copy, true),
    await measureTar(tarsPerRun * runs, tree, copy, false),
  ]
  await node.cli(['umount', tree])
  const rest = [...(await measureMounts(runs, node, tree)), ...(await measureResets(runs, node, tree))]
  await node.stop()
  return [...tars, ...rest]
}

async function measureTar(runs: number, tree: string, copy: string, cold: boolean): Promise<Measurement> {
  const values = { tree: [] as number[], copy: [] as number[] }
  const tar = async (directory: string, into: number[]): Promise<void> => {
    // The pipe is needed: tar reads no file if its output is /dev/null.
    const read = async (): Promise<unknown> =>
      await run('sh', ['-c', 'tar -C "$1" -cf - . | cat > /dev/null', 'sh', directory])
    await run('sync', [])
    if (cold) await dropAllCaches()
    else await read()
    into.push(await seconds(read))
  }
  await alternate(
    runs,
    async () => await tar(tree, values.tree),
    async () => await tar(copy, values.copy),
  )
  return measurement(`tar of a tree of 25,000 files, data local, ${cold ? 'cold' : 'warm'}`, 's', values.tree, {
    name: "host's ext4",
    values: values.copy,
  })
}

async function measureMounts(runs: number, node: NodeProcess, directory: string): Promise<Measurement[]> {
  const times = { process: [] as number[], control: [] as number[] }
  for (let i = 0; i < runs; i++) {
    times.process.push(await milliseconds(async () => await node.cli(['mount', name, directory, '--as', 'tree'])))
    await node.cli(['umount', directory])
    times.control.push(
      await milliseconds(
        async () => await callControl(node.controlSocket, 'POST /v1/mounts', { image: name, directory, as: 'tree' }),
      ),
    )
    await node.cli(['umount', directory])
  }
  return [
    measurement('mount --as tree of a known image, whole process', 'ms', times.process),
    measurement('mount --as tree of a known image, control socket', 'ms', times.control),
  ]
}

/** Something is written after each mount, so that a reset has work to do. */
async function measureResets(runs: number, node: NodeProcess, directory: string): Promise<Measurement[]> {
  const kinds = {
    'a scratch drive of 10 GiB': { image: name, directory, scratchBytes },
    'a writable tree': { image: name, directory, as: 'tree', writable: true },
    'a writable tree with a limit': { image: name, directory, as: 'tree', writable: true, limitBytes: 2 ** 30 },
  }
  const measured: Measurement[] = []
  for (const [kind, request] of Object.entries(kinds)) {
    const times = { process: [] as number[], control: [] as number[] }
    await callControl(node.controlSocket, 'POST /v1/mounts', request)
    for (let i = 0; i < runs; i++) {
      if (!('scratchBytes' in request))
        await run('dd', ['if=/dev/zero', `of=${join(directory, 'file')}`, 'bs=1M', 'count=64', 'status=none'])
      times.control.push(
        await milliseconds(async () => await callControl(node.controlSocket, 'POST /v1/mounts/reset', { directory })),
      )
      times.process.push(await milliseconds(async () => await node.cli(['reset', directory])))
    }
    await node.cli(['umount', directory])
    measured.push(
      measurement(`reset of ${kind}, control socket`, 'ms', times.control),
      measurement(`reset of ${kind}, whole process`, 'ms', times.process),
    )
  }
  return measured
}
