import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * Writes everything of the path's filesystem that is not on its disk yet, and empties the disk's own cache: syncfs(2),
 * which Node has no call for.
 * @throws what the program says: the disk refused, or there is no such program
 */
export async function syncFilesystem(path: string): Promise<void> {
  await run('sync', ['-f', path])
}
