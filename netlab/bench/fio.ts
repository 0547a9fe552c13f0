import type { LabHost } from '../hosts/lab-host.ts'
import { dropPageCache } from '../hosts/page-cache.ts'

export type ReadPattern = 'sequential' | 'random'

/** Enough reads for a rate, and few enough that most of them are cold. */
const randomSeconds = 2
const randomBytes = '64M'

/**
 * Reads a file with one job of fio: from front to back in pieces of 1 MiB, or 4 KiB at random. `cold` drops the page
 * cache first; without it the file must have been read before.
 *
 * @returns bytes per second for sequential, reads per second for random
 */
export async function readWithFio(
  host: LabHost,
  path: string,
  { pattern, cold, signal }: { pattern: ReadPattern; cold: boolean; signal?: AbortSignal },
): Promise<number> {
  if (cold) await dropPageCache({ ...(signal && { signal }) })
  const shape =
    pattern === 'sequential'
      ? ['--rw=read', '--bs=1M']
      : ['--rw=randread', '--bs=4k', `--io_size=${randomBytes}`, `--runtime=${randomSeconds}`]
  const flags = [
    '--name=read',
    '--ioengine=psync',
    '--readonly',
    '--invalidate=0',
    '--output-format=json',
    `--filename=${path}`,
  ]
  const { stdout } = await host.run('fio', [...flags, ...shape], { ...(signal && { signal }) })
  const json = stdout.toString()
  const { jobs } = JSON.parse(json.slice(json.indexOf('{'))) as { jobs: { read: { bw_bytes: number; iops: number } }[] }
  const read = jobs[0]!.read
  return pattern === 'sequential' ? read.bw_bytes : read.iops
}
