import { blockBytes } from './format.ts'

/** A run of blocks of a file. */
export interface BlockRun {
  fileBlock: number
  deviceBlock: number
  count: number
}

/** The most blocks of one extent. */
const maxExtentBlocks = 32_768
/** Entries in the inode, and in a block of the tree. */
const inInode = 4
const perBlock = Math.floor((blockBytes - 12) / 12)
const magic = 0xf30a

/** Joins runs that continue each other, and cuts those that are too long for one extent. */
export function normaliseRuns(runs: readonly BlockRun[]): BlockRun[] {
  const joined: BlockRun[] = []
  for (const run of [...runs].sort((a, b) => a.fileBlock - b.fileBlock)) {
    const last = joined.at(-1)
    if (
      last !== undefined &&
      last.fileBlock + last.count === run.fileBlock &&
      last.deviceBlock + last.count === run.deviceBlock
    )
      last.count += run.count
    else joined.push({ ...run })
  }
  return joined.flatMap(({ fileBlock, deviceBlock, count }) => {
    const pieces: BlockRun[] = []
    for (let offset = 0; offset < count; offset += maxExtentBlocks) {
      pieces.push({
        fileBlock: fileBlock + offset,
        deviceBlock: deviceBlock + offset,
        count: Math.min(maxExtentBlocks, count - offset),
      })
    }
    return pieces
  })
}

/** Number of blocks, besides the inode, of a tree of so many extents. */
export function extentTreeBlocks(extents: number): number {
  let blocks = 0
  for (let level = extents; level > inInode;) {
    level = Math.ceil(level / perBlock)
    blocks += level
  }
  return blocks
}

/**
 * @param runs normalised
 * @param firstBlock device block at which the tree's own blocks begin
 * @returns the 60 bytes for the inode and the blocks, leaves first
 */
export function encodeExtents(runs: readonly BlockRun[], firstBlock: number): { root: Buffer; blocks: Buffer[] } {
  const blocks: Buffer[] = []
  let entries = runs.map((run) => ({ fileBlock: run.fileBlock, bytes: encodeExtent(run) }))
  let depth = 0
  while (entries.length > inInode) {
    const above: typeof entries = []
    for (let offset = 0; offset < entries.length; offset += perBlock) {
      const part = entries.slice(offset, offset + perBlock)
      above.push({ fileBlock: part[0]!.fileBlock, bytes: encodeIndex(part[0]!.fileBlock, firstBlock + blocks.length) })
      blocks.push(encodeNode(part, perBlock, depth, blockBytes))
    }
    entries = above
    depth++
  }
  return { root: encodeNode(entries, inInode, depth, 60), blocks }
}

function encodeNode(entries: readonly { bytes: Buffer }[], max: number, depth: number, sizeBytes: number): Buffer {
  const node = Buffer.alloc(sizeBytes)
  node.writeUInt16LE(magic, 0)
  node.writeUInt16LE(entries.length, 2)
  node.writeUInt16LE(max, 4)
  node.writeUInt16LE(depth, 6)
  for (const [i, { bytes }] of entries.entries()) node.set(bytes, 12 + i * 12)
  return node
}

function encodeExtent({ fileBlock, deviceBlock, count }: BlockRun): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32LE(fileBlock, 0)
  bytes.writeUInt16LE(count, 4)
  bytes.writeUInt32LE(deviceBlock, 8)
  return bytes
}

function encodeIndex(fileBlock: number, deviceBlock: number): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32LE(fileBlock, 0)
  bytes.writeUInt32LE(deviceBlock, 4)
  return bytes
}
