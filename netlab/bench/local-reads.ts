import { copyFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeProcess } from '../hosts/node-process.ts'
import { run } from '../hosts/process.ts'
import type { Bench } from './bench-lab.ts'
import { readWithFio, type ReadPattern } from './fio.ts'
import { measurement, type Measurement } from './measurement.ts'
import { alternate } from './timing.ts'

const bytesPerMegabyte = 1e6

/**
 * Measures reads through the mount on a host that has every chunk, against the same file on the host's own filesystem.
 */
export async function measureLocalReads(
  { network, runs, reference }: Bench,
  node: NodeProcess,
): Promise<Measurement[]> {
  const directory = join(node.host.directory, 'mnt')
  const { rootfs } = await node.mount(reference, directory)
  const copy = join(network.directory, 'copy.img')
  await copyFile(rootfs, copy)
  await run('sync', [])
  const patterns: ReadPattern[] = ['sequential', 'random']
  const cases = patterns.flatMap((pattern) =>
    [true, false].map((cold) => ({ pattern, cold, mounted: [] as number[], native: [] as number[] })),
  )
  for (const { pattern, cold, mounted, native } of cases) {
    const scale = pattern === 'sequential' ? bytesPerMegabyte : 1
    const read = async (path: string, into: number[]): Promise<void> => {
      if (!cold) await run('cp', [path, '/dev/null'])
      into.push((await readWithFio(node.host, path, { pattern, cold })) / scale)
    }
    await alternate(
      runs,
      async () => await read(rootfs, mounted),
      async () => await read(copy, native),
    )
  }
  await node.unmount(directory)
  await rm(copy)
  return cases.map(({ pattern, cold, mounted, native }) =>
    measurement(
      `${pattern === 'sequential' ? 'sequential' : '4 KiB random'} read, all local, ${cold ? 'cold' : 'warm'}`,
      pattern === 'sequential' ? 'MB/s' : '1/s',
      mounted,
      { name: 'file on the host', values: native },
    ),
  )
}
