import { open, readFile, readlink } from 'node:fs/promises'

/** One line of /proc/self/mountinfo: proc(5). */
export interface MountInfo {
  /** Unique among the mounts that stand. */
  id: number
  /** The mount that this one is mounted in. */
  parent: number
  /** `major:minor` of the mounted filesystem. */
  device: string
  /** Path within the filesystem that is mounted here. */
  root: string
  /** Without symbolic links, as the path is now. */
  mountPoint: string
  type: string
  source: string
  /** Options of the filesystem, not of this mount: those of an overlay name its layers. */
  options: string
}

/** A file or directory that a path leads to. */
export interface Location {
  /** Its path without symbolic links. */
  path: string
  /** The mount whose root it is; undefined if nothing is mounted on it. */
  mount: MountInfo | undefined
}

/**
 * O_PATH of open(2), the same on all architectures: a handle for the place alone, for which no filesystem is asked
 * anything.
 */
const openPath = 0o10_000_000

/** Errors of a path that leads to nothing: open(2). */
const leadsNowhere: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG'])

/** The mounts of this process's namespace; never touches any of them. */
export async function readMounts(): Promise<MountInfo[]> {
  return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'))
}

/**
 * Finds what a path leads to, however it is spelt: the kernel tells which mount it is, and where that is now.
 * @returns undefined if the path leads nowhere
 */
export async function locate(path: string): Promise<Location | undefined> {
  const handle = await open(path, openPath).catch((error: NodeJS.ErrnoException) => {
    if (leadsNowhere.has(error.code)) return undefined
    throw error
  })
  if (handle === undefined) return undefined
  try {
    const [realPath, fdInfo, mounts] = await Promise.all([
      readlink(`/proc/self/fd/${handle.fd}`),
      readFile(`/proc/self/fdinfo/${handle.fd}`, 'utf8'),
      readMounts(),
    ])
    const [, id] = /^mnt_id:\s*(\d+)$/m.exec(fdInfo) ?? []
    return {
      path: realPath,
      mount: mounts.find((mount) => mount.id === Number(id) && mount.mountPoint === realPath),
    }
  } finally {
    await handle.close()
  }
}

/**
 * Names one mount while it stands, wherever it is moved. Another mount may have the same id later, but hardly all
 * three.
 */
export function identityOf({ id, device, root }: MountInfo): string {
  return `${id} ${device} ${root}`
}

export function parseMountInfo(text: string): MountInfo[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ')
      const separator = fields.indexOf('-', 6)
      const [id, parent, device = '', root = '', mountPoint = ''] = fields
      const [type = '', source = '', options = ''] = fields.slice(separator + 1)
      return {
        id: Number(id),
        parent: Number(parent),
        device,
        root: unescape(root),
        mountPoint: unescape(mountPoint),
        type,
        source: unescape(source),
        options: unescape(options),
      }
    })
}

/** Blanks and backslashes are written as three octal digits for each byte. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
