import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readMounts } from './mountinfo.ts'

/**
 * How far the kernel reads ahead in images and trees (KiB). Its default of 128 costs a program that starts on a cold
 * host an eighth more bytes, for chunks that nobody wants, and 1024 costs half as many again. The daemon itself fetches
 * ahead of sequential readers. Sequential reads of local data are as fast at 32 as at 1024, and slower at 16.
 */
const readAheadKib = 32
const directory = '/sys/class/bdi'

/** Sets it for the filesystem that is mounted on a directory. @throws if the kernel does not allow it */
export async function limitReadAhead(mountPoint: string): Promise<void> {
  const device = (await readMounts()).findLast((mount) => mount.mountPoint === mountPoint)?.device
  await write(device ?? '')
}

/**
 * Sets it for the filesystem that `mount` mounts. A filesystem without a block device does not tell which entry of
 * sysfs it has, so it is set for all new entries of that type.
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
