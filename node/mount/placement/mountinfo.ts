import { readFile } from 'node:fs/promises'

/** One line of /proc/self/mountinfo: proc(5). */
export interface MountInfo {
  /** `major:minor` of the mounted filesystem. */
  device: string
  /** Path within the filesystem that is mounted here. */
  root: string
  mountPoint: string
  type: string
  source: string
}

/** The mounts of this process's namespace; never touches any of them. */
export async function readMounts(): Promise<MountInfo[]> {
  return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'))
}

export function parseMountInfo(text: string): MountInfo[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ')
      const separator = fields.indexOf('-', 6)
      const [device = '', root = '', mountPoint = ''] = fields.slice(2, 5)
      const [type = '', source = ''] = fields.slice(separator + 1)
      return { device, root: unescape(root), mountPoint: unescape(mountPoint), type, source: unescape(source) }
    })
}

/** Blanks and backslashes stand as three octal digits of each byte. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
