import { mkdir, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { debianRecipe } from './debian-layers.ts'
import { cached, type ImageCacheOptions } from './image-cache.ts'
import { run } from '../hosts/process.ts'

/** Packages of many small files: headers and sources. A change makes a new tree. */
const recipe = { version: 1, suite: debianRecipe.suite, packages: ['libboost1.74-dev', 'golang-1.19-src'] } as const

/**
 * A directory with the contents of Debian packages that have over 20,000 files, some 250 MB. Takes seconds when it is built for
 * the first time, with network; comes from the cache after that.
 */
export async function manyFiles(options: ImageCacheOptions = {}): Promise<string> {
  return await cached('many-files', recipe, options, async (directory, work) => {
    const tree = join(work, 'tree')
    await mkdir(tree)
    await run('apt-get', ['download', ...recipe.packages], { cwd: work, ...options })
    for (const name of await readdir(work)) {
      if (name.endsWith('.deb')) await run('dpkg-deb', ['--extract', join(work, name), tree], options)
    }
    await rename(tree, directory)
  })
}
