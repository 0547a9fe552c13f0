import { copyFile, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeProcess } from '../hosts/node-process.ts'
import { run } from '../hosts/process.ts'
import type { Bench } from './bench-lab.ts'
import { readWithFio, type ReadPattern } from './fio.ts'
import { measurement, type Measurement } from './measurement.ts'
import { alternate } from './timing.ts'

const bytesPerMegabyte = 1e6

/** An image of some hundred megabytes is ready in seconds, on a busy machine (ms). */
const readyTimeoutMs = 120_000
/** A drive of any owner but root is read through FUSE. */
const owner = '65534:65534'

/**
 * Measures reads of a drive on a host that has every chunk, natively and through FUSE, against the same file on the host's
 * own filesystem. The node has native reads of drives.
 */
export async function measureLocalReads(
  { network, runs, reference }: Bench,
  node: NodeProcess,
): Promise<Measurement[]> {
  const [directory, fuseDirectory] = [join(node.host.directory, 'mnt'), join(node.host.directory, 'mnt-fuse')]
  await node.whenStatus('all images are ready', ({ images }) => images.every((image) => image.isReadyForNative), {
    timeoutMs: readyTimeoutMs,
  })
  const { rootfs } = await node.mount(reference, directory)
  await mkdir(fuseDirectory)
  await node.cli(['mount', reference, fuseDirectory, '--owner', owner])
  const throughFuse = join(fuseDirectory, 'rootfs.img')
  const copy = join(network.directory, 'copy.img')
  await copyFile(rootfs, copy)
  await run('sync', [])
  const patterns: ReadPattern[] = ['sequential', 'random']
  const cases = patterns.flatMap((pattern) =>
    [true, false].map((cold) => ({
      pattern,
      cold,
      native: [] as number[],
      fuse: [] as number[],
      host: [] as number[],
    })),
  )
  for (const { pattern, cold, native, fuse, host } of cases) {
    const scale = pattern === 'sequential' ? bytesPerMegabyte : 1
    const read = async (path: string, into: number[]): Promise<void> => {
      if (!cold) await run('cp', [path, '/dev/null'])
      into.push((await readWithFio(node.host, path, { pattern, cold })) / scale)
    }
    await alternate(
      runs,
      async () => await read(rootfs, native),
      async () => await read(throughFuse, fuse),
      async () => await read(copy, host),
    )
  }
  for (const mount of [directory, fuseDirectory]) await node.unmount(mount)
  await rm(copy)
  return cases.flatMap(({ pattern, cold, native, fuse, host }) => {
    const name = `${pattern === 'sequential' ? 'sequential' : '4 KiB random'} read, all local, ${cold ? 'cold' : 'warm'}`
    const unit = pattern === 'sequential' ? 'MB/s' : '1/s'
    const counterpart = { name: 'file on the host', values: host }
    return [
      measurement(`${name}, native`, unit, native, counterpart),
      measurement(`${name}, through FUSE`, unit, fuse, counterpart),
    ]
  })
}
