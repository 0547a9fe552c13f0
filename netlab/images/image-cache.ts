import { createHash } from 'node:crypto'
import { access, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

export interface ImageCacheOptions {
  /** Built images stay there between runs. The default is `$P2PFS_LAB_CACHE`, or else `~/.cache/p2pfs-lab`. */
  cacheDirectory?: string
  signal?: AbortSignal
}

/**
 * Builds a directory that the cache lacks. It gets its name when it is complete.
 *
 * @param recipe all that the result depends on; another recipe makes another result
 * @param build makes `directory`; `work` takes its temporary files
 * @returns the directory
 */
export async function cached(
  name: string,
  recipe: unknown,
  { cacheDirectory = defaultCacheDirectory(), signal }: ImageCacheOptions,
  build: (directory: string, work: string) => Promise<void>,
): Promise<string> {
  const key = createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 16)
  const directory = join(cacheDirectory, `${name}-${key}`)
  if (await exists(directory)) return directory
  signal?.throwIfAborted()
  await mkdir(cacheDirectory, { recursive: true })
  const temporary = await mkdtemp(join(cacheDirectory, `${name}-building-`))
  try {
    const result = join(temporary, 'result')
    const work = join(temporary, 'work')
    await mkdir(work)
    await build(result, work)
    await rename(result, directory).catch(async (error: unknown) => {
      // Another process was faster, and its result is as good.
      if (!(await exists(directory))) throw error
    })
    return directory
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

function defaultCacheDirectory(): string {
  return process.env['P2PFS_LAB_CACHE'] ?? join(homedir(), '.cache', 'p2pfs-lab')
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}
