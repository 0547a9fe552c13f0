import { constants } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import { ancestorsOf, isChangeable } from './directory-access.ts'
import { makeDirectory } from './make-directory.ts'

const privateModes = { directory: 0o700, file: 0o600 }

/** The fault that was found and mended. */
export interface Correction {
  /** The mode bits that let others in; undefined if there were none. */
  formerMode: number | undefined
}

/**
 * Makes a directory that only this process's user can enter, or makes one so that stands there. The process's umask does
 * not matter. A link is followed: to what it leads has to be this user's.
 * @param options `check`: called before a directory that lets others in is closed to them; throws to leave it as it is
 * @throws invalid if it is another user's; what the system says
 */
export async function makePrivateDirectory(
  path: string,
  { check }: { check?: () => Promise<void> } = {},
): Promise<Correction> {
  await makeDirectory(path, { mode: privateModes.directory })
  await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  return await makePrivate(directory, path, privateModes.directory, check)
}

/**
 * Sees to it that only this process's user has the rights to a file, if it is there. @throws as {@link
 * makePrivateDirectory}
 */
export async function makeFilePrivate(path: string): Promise<Correction> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
  if (file === undefined) return { formerMode: undefined }
  try {
    return await makePrivate(file, path, privateModes.file)
  } finally {
    await file.close()
  }
}

/** The first directory above a path that others than root and this user can change: they can put another in its place. */
export async function changeableAncestor(path: string): Promise<string | undefined> {
  for (const directory of ancestorsOf(path))
    if (isChangeable(await stat(directory), { trusted: userId() })) return directory
  return undefined
}

/** By the descriptor: what is looked at is what is changed. */
async function makePrivate(
  handle: FileHandle,
  path: string,
  wanted: number,
  check?: () => Promise<void>,
): Promise<Correction> {
  const { uid, mode } = await handle.stat()
  if (uid !== userId())
    throw new P2pfsError(
      'invalid',
      `${path} belongs to user ${uid}, who can put anything there, and not to user ${userId()}, as whom this daemon ` +
        'runs; remove it, or choose another',
      { path },
    )
  const bits = mode & 0o7777
  if (bits === wanted) return { formerMode: undefined }
  const wasOpen = (bits & 0o077) !== 0
  if (wasOpen) await check?.()
  await handle.chmod(wanted)
  return { formerMode: wasOpen ? bits : undefined }
}

const userId = (): number => process.geteuid!()
