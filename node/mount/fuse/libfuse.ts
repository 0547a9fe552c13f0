import { constants } from 'node:fs'
import { access, readFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { P2pfsError } from '../../../protocol/errors.ts'
import { readMounts } from '../placement/mountinfo.ts'
import { runTool, type RunTool } from '../placement/run-tool.ts'

/** The part of the package fuse-native that is used here; the package has no types of its own. */
export interface FuseNative {
  new (
    mountPoint: string,
    operations: object,
    options: object,
  ): { mount: (done: (error: Error | null) => void) => void; unmount: (done: (error: Error | null) => void) => void }
  ENOENT: number
  EIO: number
}

const packages = 'on Debian: apt-get install libfuse2 fuse'

/** Loads libfuse. @throws unsupported, with what to do, if this host or user cannot mount with it */
export async function loadLibfuse({ run = runTool }: { run?: RunTool } = {}): Promise<FuseNative> {
  const fail = (problem: string, cause?: unknown): never => {
    throw new P2pfsError('unsupported', `--fuse-driver native cannot mount: ${problem}`, { cause })
  }
  let Fuse: FuseNative
  try {
    // In a variable, because the package is optional and the type checker may not find it.
    const name = 'fuse-native'
    Fuse = ((await import(name)) as { default: FuseNative }).default
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND')
      return fail(
        'its package fuse-native is not installed: npm ci in a checkout of p2pfs does it, and the Debian package has none',
        cause,
      )
    return fail(`libfuse 2 cannot be loaded (${(cause as Error).message.split('\n')[0]}); ${packages}`, cause)
  }
  await access('/dev/fuse', constants.R_OK | constants.W_OK).catch((cause: unknown) =>
    fail(
      `user ${userInfo().username} cannot open /dev/fuse; as root: modprobe fuse, then chmod 666 /dev/fuse, ` +
        'or make the user a member of its group',
      cause,
    ),
  )
  const version = await run('fusermount', ['-V'])
  if (!version.ok) fail(`fusermount is not installed; ${packages}`)
  return Fuse
}

/** Whether the user of this process may let other users, such as root, use its mounts: fuse.conf(5). */
export async function mayAllowOthers(): Promise<boolean> {
  if (userInfo().uid === 0) return true
  return /^\s*user_allow_other\s*$/m.test(await readFile('/etc/fuse.conf', 'utf8').catch(() => ''))
}

/** Unmounts a FUSE filesystem that is mounted there, also one whose daemon is gone. @returns whether there was one */
export async function unmountFuse(mountPoint: string, { run = runTool }: { run?: RunTool } = {}): Promise<boolean> {
  if (!(await readMounts()).some((mount) => mount.mountPoint === mountPoint)) return false
  const result = await run('fusermount', ['-u', '-z', mountPoint])
  if (!result.ok)
    throw new P2pfsError('conflict', `cannot unmount ${mountPoint}: ${result.message}; unmount it as root`)
  return true
}
