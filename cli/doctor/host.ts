import { constants } from 'node:fs'
import { access, open, readFile, stat, statfs } from 'node:fs/promises'
import { release } from 'node:os'
import { delimiter, dirname, join } from 'node:path'

/** A filesystem, as statfs(2) has it. */
export interface Filesystem {
  /** Its magic number. */
  type: number
  freeBytes: number
  sizeBytes: number
  /** Inodes; 0 where the filesystem makes them as it needs them. */
  files: number
  freeFiles: number
}

/**
 * The facts of a host that checks look at; tests have a host of their own. No method throws: a fact that is not there
 * is undefined.
 */
export interface Host {
  kernelRelease: string
  readText: (path: string) => Promise<string | undefined>
  /** Whether a device can be opened, or why not. */
  tryOpen: (path: string) => Promise<'ok' | 'missing' | 'denied'>
  /** The filesystem of the path's nearest directory that exists. */
  filesystemOf: (path: string) => Promise<Filesystem | undefined>
  hasTool: (name: string) => Promise<boolean>
}

/** Directories of system tools, which a user's PATH may lack. */
const toolDirectories = ['/usr/local/sbin', '/usr/sbin', '/sbin']

/** This host. */
export const thisHost: Host = {
  kernelRelease: release(),
  readText: async (path) => await readFile(path, 'utf8').catch(() => undefined),
  tryOpen: async (path) => {
    try {
      const file = await open(path, constants.O_RDWR | constants.O_NONBLOCK)
      await file.close()
      return 'ok'
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'missing' : 'denied'
    }
  },
  filesystemOf: async (path) => {
    const directory = await nearest(path)
    const found = await statfs(directory).catch(() => undefined)
    if (found === undefined) return undefined
    const { type, bavail, bsize, blocks, files, ffree } = found
    return { type, freeBytes: bavail * bsize, sizeBytes: blocks * bsize, files, freeFiles: ffree }
  },
  hasTool: async (name) => {
    const directories = [...(process.env['PATH'] ?? '').split(delimiter), ...toolDirectories].filter(
      (path) => path !== '',
    )
    const found = await Promise.all(
      directories.map(async (directory) =>
        access(join(directory, name), constants.X_OK).then(
          () => true,
          () => false,
        ),
      ),
    )
    return found.includes(true)
  },
}

async function nearest(path: string): Promise<string> {
  const isThere = await stat(path).then(
    () => true,
    () => false,
  )
  return isThere || path === '/' ? path : await nearest(dirname(path))
}
