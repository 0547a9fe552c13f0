import type { ByteString } from '../../../protocol/layer-index.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { blockBytes, entryTypes } from './format.ts'
import { directoryHash } from './hash.ts'

export interface DirectoryEntry {
  name: ByteString
  inode: number
  type: keyof typeof entryTypes
}

const entryBytes = (nameLength: number): number => (8 + nameLength + 3) & ~3
/** Most index entries in the root block, behind '.', '..' and dx_root_info. */
const rootLimit = (blockBytes - 32) / 8
/** Most index entries in an inner block, behind an empty directory entry. */
const nodeLimit = (blockBytes - 8) / 8

/**
 * The blocks of a directory: one, or a hash tree (htree) of depth one or two.
 * @throws unsupported for more entries than two levels hold: above ten million
 */
export function encodeDirectory(
  self: number,
  parent: number,
  entries: readonly DirectoryEntry[],
  seed: Uint32Array,
): { blocks: Buffer[]; indexed: boolean } {
  const total = entries.reduce((sum, { name }) => sum + entryBytes(name.length), entryBytes(1) + entryBytes(2))
  if (total <= blockBytes) return { blocks: [linearBlock(self, parent, entries)], indexed: false }
  const leaves = hashLeaves(entries, seed)
  return { blocks: [...indexBlocks(self, parent, leaves), ...leaves.map(({ block }) => block)], indexed: true }
}

function put(block: Buffer, offset: number, recordBytes: number, { name, inode, type }: DirectoryEntry): void {
  block.writeUInt32LE(inode, offset)
  block.writeUInt16LE(recordBytes, offset + 4)
  block[offset + 6] = name.length
  block[offset + 7] = entryTypes[type]
  block.write(name, offset + 8, 'latin1')
}

/** A block of entries one after the other; the last reaches to the end of the block. */
function fillBlock(entries: readonly DirectoryEntry[]): Buffer {
  const block = Buffer.alloc(blockBytes)
  let offset = 0
  for (const [i, entry] of entries.entries()) {
    const bytes = i === entries.length - 1 ? blockBytes - offset : entryBytes(entry.name.length)
    put(block, offset, bytes, entry)
    offset += bytes
  }
  return block
}

const dot = (inode: number): DirectoryEntry => ({ name: '.', inode, type: 'directory' })
const dotDot = (inode: number): DirectoryEntry => ({ name: '..', inode, type: 'directory' })

function linearBlock(self: number, parent: number, entries: readonly DirectoryEntry[]): Buffer {
  return fillBlock([dot(self), dotDot(parent), ...entries])
}

interface Leaf {
  /** Lowest hash in the block. Its lowest bit is set where the block before ends with the same hash. */
  hash: number
  block: Buffer
}

function hashLeaves(entries: readonly DirectoryEntry[], seed: Uint32Array): Leaf[] {
  const hashed = entries.map((entry) => ({ entry, hash: directoryHash(Buffer.from(entry.name, 'latin1'), seed) }))
  hashed.sort((a, b) => a.hash - b.hash || (a.entry.name < b.entry.name ? -1 : 1))
  const leaves: Leaf[] = []
  let start = 0
  let bytes = 0
  const close = (end: number): void => {
    const first = hashed[start]!
    const continued = start > 0 && hashed[start - 1]!.hash === first.hash
    leaves.push({
      hash: continued ? (first.hash | 1) >>> 0 : first.hash,
      block: fillBlock(hashed.slice(start, end).map(({ entry }) => entry)),
    })
    start = end
    bytes = 0
  }
  for (const [i, { entry }] of hashed.entries()) {
    const size = entryBytes(entry.name.length)
    if (bytes + size > blockBytes) close(i)
    bytes += size
  }
  close(hashed.length)
  return leaves
}

/** The root block, and inner blocks where the root has no room for all leaves. The leaves follow these blocks. */
function indexBlocks(self: number, parent: number, leaves: readonly Leaf[]): Buffer[] {
  const inner = leaves.length <= rootLimit ? 0 : Math.ceil(leaves.length / nodeLimit)
  if (inner > rootLimit)
    throw new P2pfsError(
      'unsupported',
      `a directory has too many entries: over ${rootLimit * nodeLimit} blocks of them`,
    )
  const root = Buffer.alloc(blockBytes)
  put(root, 0, 12, dot(self))
  put(root, 12, blockBytes - 12, dotDot(parent))
  // struct dx_root_info: the hash is half MD4, the struct has 8 bytes, levels of inner blocks.
  root[28] = 1
  root[29] = 8
  root[30] = inner === 0 ? 0 : 1
  if (inner === 0) {
    putIndex(
      root,
      32,
      rootLimit,
      leaves.map(({ hash }, i) => ({ hash, block: 1 + i })),
    )
    return [root]
  }
  const blocks = [root]
  const above: { hash: number; block: number }[] = []
  for (let i = 0; i < inner; i++) {
    const part = leaves.slice(i * nodeLimit, (i + 1) * nodeLimit)
    const block = Buffer.alloc(blockBytes)
    block.writeUInt16LE(blockBytes, 4)
    putIndex(
      block,
      8,
      nodeLimit,
      part.map(({ hash }, j) => ({ hash, block: 1 + inner + i * nodeLimit + j })),
    )
    above.push({ hash: part[0]!.hash, block: 1 + i })
    blocks.push(block)
  }
  putIndex(root, 32, rootLimit, above)
  return blocks
}

/**
 * Writes index entries. The first covers all hashes below the second; the limit and count stand in place of its hash.
 */
function putIndex(
  block: Buffer,
  offset: number,
  limit: number,
  entries: readonly { hash: number; block: number }[],
): void {
  for (const [i, entry] of entries.entries()) {
    block.writeUInt32LE(entry.hash, offset + i * 8)
    block.writeUInt32LE(entry.block, offset + i * 8 + 4)
  }
  block.writeUInt16LE(limit, offset)
  block.writeUInt16LE(entries.length, offset + 2)
}
