import type { ByteString } from '../../../protocol/layer-entry.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { entryTypes } from '../tree/inode-types.ts'
import { blockBytes } from './format.ts'
import { directoryHash } from './hash.ts'

export interface DirectoryEntry {
  name: ByteString
  inode: number
  type: keyof typeof entryTypes
}

/**
 * The entries of a directory in bytewise order of their names. There may be millions: each is made when it is looked
 * at.
 */
export interface DirectorySource {
  self: number
  parent: number
  count: number
  name: (index: number) => ByteString
  inode: (index: number) => number
  type: (index: number) => keyof typeof entryTypes
}

const entryBytes = (nameLength: number): number => (8 + nameLength + 3) & ~3
/** Most index entries in the root block, behind '.', '..' and dx_root_info. */
const rootLimit = (blockBytes - 32) / 8
/** Most index entries in an inner block, behind an empty directory entry. */
const nodeLimit = (blockBytes - 8) / 8

/**
 * A directory: one block, or a hash tree (htree) of depth one or two.
 * @throws unsupported for more entries than two levels hold: above ten million
 */
export function planDirectory(
  source: DirectorySource,
  seed: Uint32Array,
): { blockCount: number; indexed: boolean; blocks: () => Generator<Buffer> } {
  let total = entryBytes(1) + entryBytes(2)
  for (let i = 0; i < source.count; i++) total += entryBytes(source.name(i).length)
  if (total <= blockBytes) {
    return {
      blockCount: 1,
      indexed: false,
      *blocks() {
        yield linearBlock(source)
      },
    }
  }
  const leaves = hashLeaves(source, seed)
  return {
    blockCount: indexBlockCount(leaves.starts.length) + leaves.starts.length,
    indexed: true,
    *blocks() {
      yield* indexBlocks(source, leaves)
      for (const [i, start] of leaves.starts.entries())
        yield fillBlock(
          Array.from(leaves.order.subarray(start, leaves.starts[i + 1]), (index) => entryAt(source, index)),
        )
    },
  }
}

const entryAt = ({ name, inode, type }: DirectorySource, index: number): DirectoryEntry => ({
  name: name(index),
  inode: inode(index),
  type: type(index),
})

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

function linearBlock(source: DirectorySource): Buffer {
  const entries = Array.from({ length: source.count }, (_, i) => entryAt(source, i))
  return fillBlock([dot(source.self), dotDot(source.parent), ...entries])
}

interface Leaves {
  /** Indexes of the entries in the order of their hashes. */
  order: Uint32Array
  /** The begin of each leaf in that order. */
  starts: number[]
  /** Lowest hash in each leaf. Its lowest bit is set where the leaf before ends with the same hash. */
  hashes: number[]
}

function hashLeaves({ count, name }: DirectorySource, seed: Uint32Array): Leaves {
  const hashes = Uint32Array.from({ length: count }, (_, i) => directoryHash(Buffer.from(name(i), 'latin1'), seed))
  const order = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => hashes[a]! - hashes[b]! || a - b)
  const leaves: Leaves = { order, starts: [], hashes: [] }
  let bytes = blockBytes
  for (const [i, index] of order.entries()) {
    const size = entryBytes(name(index).length)
    if (bytes + size > blockBytes) {
      const hash = hashes[index]!
      const continued = i > 0 && hashes[order[i - 1]!] === hash
      leaves.starts.push(i)
      leaves.hashes.push(continued ? (hash | 1) >>> 0 : hash)
      bytes = 0
    }
    bytes += size
  }
  return leaves
}

/** Inner blocks where the root has no room for all leaves. */
const innerBlockCount = (leaves: number): number => (leaves <= rootLimit ? 0 : Math.ceil(leaves / nodeLimit))

function indexBlockCount(leaves: number): number {
  const inner = innerBlockCount(leaves)
  if (inner > rootLimit)
    throw new P2pfsError(
      'unsupported',
      `a directory has too many entries: over ${rootLimit * nodeLimit} blocks of them`,
    )
  return 1 + inner
}

/** The root block and the inner blocks. The leaves follow these blocks. */
function indexBlocks({ self, parent }: DirectorySource, { hashes }: Leaves): Buffer[] {
  const inner = innerBlockCount(hashes.length)
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
      hashes.map((hash, i) => ({ hash, block: 1 + i })),
    )
    return [root]
  }
  const blocks = [root]
  const above: { hash: number; block: number }[] = []
  for (let i = 0; i < inner; i++) {
    const part = hashes.slice(i * nodeLimit, (i + 1) * nodeLimit)
    const block = Buffer.alloc(blockBytes)
    block.writeUInt16LE(blockBytes, 4)
    putIndex(
      block,
      8,
      nodeLimit,
      part.map((hash, j) => ({ hash, block: 1 + inner + i * nodeLimit + j })),
    )
    above.push({ hash: part[0]!, block: 1 + i })
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
