import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'

/** LevelDB's files: tables are written once and never changed. https://github.com/google/leveldb/blob/main/doc/impl.md */
const table = /^\d+\.(?:ldb|sst)$/
/** Names the manifest that counts: whoever replaces it replaces the database. */
const current = 'CURRENT'
/** A copy of the disk's CURRENT, at the time when the copy in memory was made from it. LevelDB leaves it alone. */
const origin = 'CURRENT.disk'
/** Files of one process each: its lock, and its own log, which nobody reads. */
const passing: ReadonlySet<string> = new Set(['LOCK', 'LOG', 'LOG.old', origin])

export interface CatalogDirectories {
  /** The directory of the database on the disk. */
  disk: string
  /** The directory of its copy, on a tmpfs where there is one. */
  memory: string
}

/**
 * Makes a LevelDB in memory that begins as the one on the disk, and takes no more memory than what is written to it: tables stay
 * on the disk. Neither is open meanwhile.
 */
export async function copyToMemory({ disk, memory }: CatalogDirectories): Promise<void> {
  const partial = `${memory}.partial`
  for (const directory of [partial, memory]) await rm(directory, { recursive: true, force: true })
  await mkdir(partial, { recursive: true, mode: 0o700 })
  for (const name of await readdir(disk)) {
    if (table.test(name)) await symlink(join(disk, name), join(partial, name))
    else if (!passing.has(name)) await copyFile(join(disk, name), join(partial, name))
  }
  await copyFile(join(disk, current), join(partial, origin))
  await rename(partial, memory)
}

/** Whether there is a copy in memory, and nobody has opened the database on the disk since it was made. */
export async function isInMemory({ disk, memory }: CatalogDirectories): Promise<boolean> {
  const read = async (path: string): Promise<string | undefined> =>
    await readFile(path, 'latin1').catch(() => undefined)
  const [of, now] = await Promise.all([read(join(memory, origin)), read(join(disk, current))])
  return of !== undefined && of === now
}

/** The room that {@link copyToDisk} needs on the disk (bytes). */
export async function bytesInMemory({ memory }: Pick<CatalogDirectories, 'memory'>): Promise<number> {
  let bytes = 0
  for (const name of await filesOf(memory)) bytes += (await stat(join(memory, name))).size
  return bytes
}

/**
 * Puts the copy in memory in the place of the database on the disk. Neither is open meanwhile. A crash before the end leaves
 * the one that was there: what is new has numbers of its own.
 */
export async function copyToDisk({ disk, memory }: CatalogDirectories): Promise<void> {
  const names = await filesOf(memory)
  for (const name of [...names.filter((each) => each !== current), current]) {
    const partial = join(disk, `${name}.partial`)
    try {
      await copyFile(join(memory, name), partial)
      await sync(partial)
      await rename(partial, join(disk, name))
    } catch (error) {
      await rm(partial, { force: true })
      throw error
    }
  }
  await sync(disk)
  await rm(memory, { recursive: true, force: true })
}

/** Files that are in memory alone. */
async function filesOf(memory: string): Promise<string[]> {
  return (await readdir(memory, { withFileTypes: true }))
    .filter((entry) => entry.isFile() && !passing.has(entry.name))
    .map(({ name }) => name)
}

async function sync(path: string): Promise<void> {
  await using handle = await open(path)
  await handle.sync()
}
