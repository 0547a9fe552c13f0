import { mkdir, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { debianRecipe } from './debian-layers.ts'
import { cached, type ImageCacheOptions } from './image-cache.ts'
import { run } from '../hosts/process.ts'

/** Packages with many small files: headers and sources. A change makes a new tree. */
const recipe = { version: 1, suite: debianRecipe.suite, packages: ['libboost1.74-dev', 'golang-1.19-src'] } as const

/**
 * A directory with the contents of Debian packages: over 20,000 files, some 250 MB. The first build takes seconds and
 * needs the network; later calls find it in the cache.
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
