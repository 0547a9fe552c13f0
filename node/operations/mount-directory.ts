import { realpath } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'

/** Refuses the root of this host, and a directory in which p2pfs keeps its own files and mounts. @throws invalid */
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
}
