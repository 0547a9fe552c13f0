import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readMounts } from './mountinfo.ts'

/**
 * How far the kernel reads ahead in images and trees, KiB. Its own 128 costs a program that starts on a cold host an eighth more
 * bytes, for chunks that nobody wants, and 1024 a half; what is read on and on the daemon fetches ahead itself. Sequential reads
 * of what is local are as fast at 32 as at 1024, and slower at 16.
 */
const readAheadKib = 32
const directory = '/sys/class/bdi'

/** For what is mounted there. @throws where the kernel does not let it */
export async function limitReadAhead(mountPoint: string): Promise<void> {
  const device = (await readMounts()).findLast((mount) => mount.mountPoint === mountPoint)?.device
  await write(device ?? '')
}

/**
 * For what `mount` mounts that has no device of its own and says nowhere which entry of sysfs it has: for all that are new of that type.
 * @throws what `mount` throws
 */
export async function withLimitedReadAhead<T>(type: string, mount: () => Promise<T>): Promise<T> {
  const list = async (): Promise<string[]> => await readdir(directory).catch(() => [])
  const before = new Set(await list())
  const result = await mount()
  for (const name of await list())
    if (name.startsWith(`${type}-`) && !before.has(name)) await write(name).catch(() => undefined)
  return result
}

async function write(name: string): Promise<void> {
  await writeFile(join(directory, name, 'read_ahead_kb'), `${readAheadKib}\n`)
}
