import { P2pfsError } from './errors.ts'

/** Bytes of a region key, all random. */
export const regionKeyBytes = 32
/** Keys of one file: the one in use, and another while keys are changed. */
export const maxRegionKeys = 2

const prefix = 'p2pfs-region-key-1:'

/** The line of a region key file that holds this key; SPEC.md, "Region key". */
export function formatRegionKey(key: Uint8Array): string {
  return prefix + Buffer.from(key).toString('base64url')
}

/**
 * The keys of a region key file: one a line. Empty lines and lines that begin with `#` do not count.
 * @throws invalid, without a part of a key in the message
 */
export function parseRegionKeys(text: string): Uint8Array[] {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
  if (lines.length === 0) throw new P2pfsError('invalid', 'it holds no region key')
  if (lines.length > maxRegionKeys)
    throw new P2pfsError('invalid', `it holds ${lines.length} region keys, and ${maxRegionKeys} are the most`)
  return lines.map((line, i) => {
    const key = line.startsWith(prefix) ? Buffer.from(line.slice(prefix.length), 'base64url') : undefined
    if (key?.length !== regionKeyBytes || formatRegionKey(key) !== line)
      throw new P2pfsError('invalid', `key ${i + 1} is not a region key; p2pfs keygen makes one`)
    return Uint8Array.from(key)
  })
}
