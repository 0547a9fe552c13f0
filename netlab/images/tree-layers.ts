import { mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { run } from '../hosts/process.ts'
import { readTree, type Tree } from './directory-tree.ts'

/**
 * An upper layer has the files that differ in one of these. Times do not count, because all packages are unpacked
 * twice.
 */
export const comparedAspects = [
  'type',
  'mode',
  'uid',
  'gid',
  'sizeBytes',
  'content',
  'linkTarget',
  'device',
  'xattrs',
] as const

/**
 * Makes the tree of the layer that turns `below` into `above`: all that differs, with its directories, and whiteouts.
 */
export async function writeDifference(
  tree: string,
  below: string,
  above: string,
  options: { signal?: AbortSignal },
): Promise<void> {
  const [lower, upper] = [await readTree(below, options), await readTree(above, options)]
  const changed = new Set<string>()
  for (const [path, entry] of upper) {
    const old = lower.get(path)
    if (old !== undefined && comparedAspects.every((aspect) => old[aspect] === entry[aspect])) continue
    for (let parent = path; parent !== '.'; parent = dirname(parent)) changed.add(parent)
  }
  await mkdir(tree)
  const names = [...changed].filter(Boolean).sort()
  const list = Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1')
  const copied = `${tree}.copied.tar`
  const fromList = ['--null', '--verbatim-files-from', '--no-recursion', '--files-from=-']
  await run('tar', ['--create', `--file=${copied}`, `--directory=${above}`, '--xattrs', ...fromList], {
    ...options,
    input: list,
  })
  await run('tar', ['--extract', `--file=${copied}`, `--directory=${tree}`, '--xattrs', '--xattrs-include=*'], options)
  await rm(copied)
  for (const path of removedFrom(lower, upper)) {
    await mkdir(join(tree, dirname(path)), { recursive: true })
    await writeFile(join(tree, dirname(path), `.wh.${path.slice(path.lastIndexOf('/') + 1)}`), '')
  }
}

/** The paths that `upper` no longer has. A directory stands for everything in it. */
function removedFrom(lower: Tree, upper: Tree): string[] {
  return [...lower.keys()].filter(
    (path) => !upper.has(path) && upper.get(path.includes('/') ? dirname(path) : '')?.type === 'directory',
  )
}

/** @param clampSeconds later timestamps become this one; all timestamps stay if it is not given */
export async function packTree(
  tree: string,
  tar: string,
  { clampSeconds, ...options }: { clampSeconds?: number; signal?: AbortSignal },
): Promise<void> {
  const clamp = clampSeconds === undefined ? [] : [`--mtime=@${clampSeconds}`, '--clamp-mtime']
  const pax = ['--format=pax', '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime', '--xattrs']
  await run(
    'tar',
    ['--create', `--file=${tar}`, `--directory=${tree}`, ...clamp, '--sort=name', '--numeric-owner', ...pax, '.'],
    options,
  )
}
