import { createCipheriv } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { readdir, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { OciLayout } from '../../support/oci-layout.ts'
import { writeTar } from '../../support/tar-writer.ts'

/** Images of the registry: enough for the rounds of one disk, so that each finds some that are not on it. */
export const registryImages = 12
const repository = 'lab/image'

/**
 * Sizes of the files of a tree (bytes): large ones that are cut into chunks of their own, and small ones that share chunks;
 * 3 MB in all, which is a second of an import.
 */
const fileSizes = [1_500_000, 700_001, 300_000, ...Array.from({ length: 60 }, (_, i) => 1 + i * 211)]

/** The content of a file of a tree: the key stream of a number, so that no two pages of any two files are the same. */
function contentOf(tree: number, file: number): Buffer {
  const key = Buffer.alloc(16)
  key.writeUInt32LE(tree, 0)
  key.writeUInt32LE(file, 4)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(fileSizes[file]!))
}

const pathOf = (tree: number, file: number): string => `tree-${tree}/${file % 4}/file-${file}`

/** Writes the tree of a number, for an import. */
export function writeTree(directory: string, tree: number): void {
  for (const file of fileSizes.keys()) {
    const path = join(directory, pathOf(tree, file))
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, contentOf(tree, file))
  }
}

/**
 * Reads all files of trees and compares every byte.
 * @returns what is wrong
 * @throws what the mount throws
 */
export async function compareTrees(directory: string, trees: readonly number[]): Promise<string[]> {
  const findings: string[] = []
  const names = await readdir(directory)
  for (const tree of trees) {
    if (!names.includes(`tree-${tree}`)) findings.push(`tree-${tree} is not there, but ${names.join()}`)
    else
      for (const file of fileSizes.keys())
        if (!(await readFile(join(directory, pathOf(tree, file)))).equals(contentOf(tree, file)))
          findings.push(`${pathOf(tree, file)} is not what it was`)
  }
  return findings
}

/** The trees of an image of the registry: a base that all have, and one of its own. They are none of the imported ones. */
export function registryTrees(image: number): number[] {
  return [1_000_000, 1_000_001 + image]
}

/** A registry in this process that has {@link registryImages}. */
export async function startRegistry(directory: string): Promise<FaultRegistry> {
  const layout = await OciLayout.create(join(directory, 'layout'))
  const layer = async (tree: number): ReturnType<OciLayout['addLayer']> => {
    const tar = join(directory, 'layer.tar')
    const entries = [...fileSizes.keys()].map((file) => {
      return { path: pathOf(tree, file), type: 'file', content: contentOf(tree, file) } as const
    })
    writeFileSync(tar, writeTar(entries))
    const stored = await layout.addLayer(tar, 'gzip')
    await rm(tar)
    return stored
  }
  const base = await layer(registryTrees(0)[0]!)
  for (let image = 0; image < registryImages; image++)
    await layout.addImage(`${image}`, [base, await layer(registryTrees(image)[1]!)], {})
  const registry = await FaultRegistry.start()
  await registry.addLayout(repository, layout.directory)
  return registry
}

export const registryReference = (registry: FaultRegistry, image: number): string =>
  `${registry.authority}/${repository}:${image}`
