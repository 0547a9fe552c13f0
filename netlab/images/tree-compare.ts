import { readTree, type Tree, type TreeEntry } from './directory-tree.ts'

export interface Difference {
  /** Relative to the root, Latin-1. */
  path: string
  /** The aspect that differs; `presence` if only one of the trees has the path. */
  aspect: keyof TreeEntry | 'presence'
  left: string | undefined
  right: string | undefined
}

/**
 * Compares two directory trees, with their roots, in everything that a program can see: types, permissions, owners,
 * times, hard links, extended attributes, devices, link targets, contents. As root, to see all attributes.
 */
export async function compareTrees(
  left: string,
  right: string,
  options: { signal?: AbortSignal } = {},
): Promise<Difference[]> {
  const [leftTree, rightTree] = await Promise.all([readTree(left, options), readTree(right, options)])
  return differences(leftTree, rightTree)
}

/** The differences of two trees that have been read, by path. */
export function differences(left: Tree, right: Tree): Difference[] {
  const found: Difference[] = []
  for (const path of [...new Set([...left.keys(), ...right.keys()])].sort()) {
    const [a, b] = [left.get(path), right.get(path)]
    if (a === undefined || b === undefined) {
      found.push({ path, aspect: 'presence', left: a?.type, right: b?.type })
      continue
    }
    for (const aspect of Object.keys(a) as (keyof TreeEntry)[]) {
      if (a[aspect] !== b[aspect]) found.push({ path, aspect, left: a[aspect], right: b[aspect] })
    }
  }
  return found
}

/** One line for people for each of the first `max` differences. */
export function describeDifferences(found: readonly Difference[], max = 20): string {
  const lines = found
    .slice(0, max)
    .map(({ path, aspect, left, right }) => `${JSON.stringify(path)}: ${aspect} ${left} != ${right}`)
  return [...lines, ...(found.length > max ? [`and ${found.length - max} more`] : [])].join('\n')
}
