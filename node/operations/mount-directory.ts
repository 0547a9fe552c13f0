import { realpath, stat } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'

/**
 * Refuses the root of this host, a directory in which p2pfs keeps its own files and mounts, and what is no directory.
 * @throws invalid; missing; conflict for a file
 */
export async function checkMountDirectory(directory: string, stateDir: string): Promise<void> {
  const [real, state] = await Promise.all(
    [directory, stateDir].map(async (path) => await realpath(path).catch(() => path)),
  )
  if (real === '/')
    throw new P2pfsError('invalid', 'nothing is mounted on /, the root of this host; make a directory for it', {
      directory,
      isUsage: true,
    })
  if (real === state || real!.startsWith(`${state!}/`))
    throw new P2pfsError('invalid', `${directory} is in the state directory of p2pfs; mount on another directory`, {
      directory,
      isUsage: true,
    })
  // Before the image is looked for: a wrong path would come to light when it has been imported.
  const found = await stat(directory).catch((error: NodeJS.ErrnoException) => error)
  if (found instanceof Error && (found.code === 'ENOENT' || found.code === 'ENOTDIR'))
    throw new P2pfsError('missing', `no such directory: ${directory}; make it first`, { directory })
  if (!(found instanceof Error) && !found.isDirectory())
    throw new P2pfsError('conflict', `not a directory: ${directory}`, { directory })
}
