import { open } from 'node:fs/promises'

/**
 * Resolves when the names in a directory are on the disk: one that was made or changed before would survive a power
 * loss.
 */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r')
  await directory.sync()
}
