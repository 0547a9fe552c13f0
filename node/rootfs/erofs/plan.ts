import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { ByteString } from '../../../protocol/layer-entry.ts'
import { release } from '../../base/release.ts'
import { namingPath, uuidFrom, type FilesystemPlan } from '../filesystem-plan.ts'
import { Column } from '../column.ts'
import { InodeOrder } from '../tree/inode-order.ts'
import type { RootfsInode } from '../tree/rootfs-inode.ts'
import type { RootfsTree } from '../tree/rootfs-tree.ts'
import { encodeDirectoryBlock, packDirectory } from './directory.ts'
import { encodeChunks, mapFile, type FileMap } from './file-map.ts'
import { blockBytes, inodeBytes, nullBlock, slotBytes, superblockBytes, superblockOffset } from './format.ts'
import { encodeDevice, encodeInode, type InodeBody } from './inode.ts'
import { SlotAllocator } from './slot-allocator.ts'
import { writeSuperblock } from './superblock.ts'
import { encodeXattrs } from './xattr.ts'

/** The longest link target in Linux, bytes. */
const maxTargetBytes = 4095

/** The names of a directory with `.` and `..`, in bytewise order. */
interface Listing {
  names: readonly ByteString[]
  /** Positions of the inodes. */
  positions: readonly number[]
  /** How the names share blocks. */
  packed: ReturnType<typeof packDirectory>
}

/** An inode and the parts of it. */
interface Planned {
  node: RootfsInode
  position: number
  xattrs: Buffer
  listing: Listing | undefined
  map: FileMap | undefined
  device: number
  /** Number of its own blocks, behind all inodes: of a directory or a long link target. */
  ownBlocks: number
  /** Bytes right behind inode and attributes: the end of a directory, a link target, or a chunk map. */
  tailBytes: number
}

/**
 * Lays out an uncompressed EROFS filesystem. Its metadata is one segment at the front; file contents stay in the
 * layers' data segments. The metadata segment has, in order: the superblock; the inodes, a directory's children
 * together, each with its short parts (attributes, the end of a directory, link target, map of a file with holes); full
 * directory blocks and long link targets.
 *
 * @param layerBytes size of each layer's data segment, a multiple of 4096, lowest first
 * @param seed decides on the UUID
 * @throws unsupported, naming the path, for an entry that EROFS cannot hold
 */
export function planErofs(tree: RootfsTree, layerBytes: readonly number[], seed: Digest): FilesystemPlan {
  return new ErofsPlan(tree, layerBytes, uuidFrom(seed))
}

class ErofsPlan implements FilesystemPlan {
  readonly metadataBytes: number
  readonly sizeBytes: number
  readonly #tree: RootfsTree
  readonly #order: InodeOrder
  readonly #uuid: Uint8Array
  /** First block of each layer's data segment, counted over all of them. */
  readonly #layerBlocks: number[] = []
  /** By position, the inode's number, which is its place on the device. */
  readonly #slots = new Column(Uint32Array)
  /** By position, the own blocks of all inodes before it. One more position has those of all. */
  readonly #ownStarts = new Column(Uint32Array)
  /** The block behind all inodes, at which the own blocks begin. */
  readonly #firstOwnBlock: number
  readonly #metadataBlocks: number
  #chunked = false

  constructor(tree: RootfsTree, layerBytes: readonly number[], uuid: Uint8Array) {
    this.#tree = tree
    this.#uuid = uuid
    this.#order = new InodeOrder(tree)
    let dataBlocks = 0
    for (const bytes of layerBytes) {
      this.#layerBlocks.push(dataBlocks)
      dataBlocks += bytes / blockBytes
    }
    const slots = new SlotAllocator(superblockOffset + superblockBytes)
    let ownBlocks = 0
    for (let position = 0; position < this.#order.count; position++) {
      const planned = namingPath(tree, this.#order.inodeAt(position), () => this.#planned(position))
      this.#slots.push(slots.allocate(inodeBytes + planned.xattrs.length + planned.tailBytes) / slotBytes)
      if (planned.map !== undefined && 'chunks' in planned.map) this.#chunked = true
      this.#ownStarts.push(ownBlocks)
      ownBlocks += planned.ownBlocks
    }
    this.#ownStarts.push(ownBlocks)
    this.#firstOwnBlock = Math.ceil(slots.end / blockBytes)
    this.#metadataBlocks = this.#firstOwnBlock + ownBlocks
    if (this.#metadataBlocks + dataBlocks >= 2 ** 32)
      throw new P2pfsError('unsupported', 'the image is larger than 16 TiB')
    this.metadataBytes = this.#metadataBlocks * blockBytes
    this.sizeBytes = (this.#metadataBlocks + dataBlocks) * blockBytes
  }

  *pieces(): Generator<Uint8Array> {
    let isFirst = true
    for (const block of wholeBlocks(this.#inodeBytes())) {
      if (isFirst) {
        writeSuperblock(block, {
          totalBlocks: this.sizeBytes / blockBytes,
          inodes: this.#order.count,
          rootNode: this.#slots.get(0),
          chunked: this.#chunked,
          uuid: this.#uuid,
        })
      }
      isFirst = false
      yield block
    }
    for (let position = 0; position < this.#order.count; position++) {
      const count = this.#ownStarts.get(position + 1) - this.#ownStarts.get(position)
      if (count === 0) continue
      const planned = this.#planned(position)
      for (let i = 0; i < count; i++) yield wholeBlock(this.#data(planned, i))
    }
  }

  /** The device up to the end of the inodes, without the superblock. */
  *#inodeBytes(): Generator<Buffer> {
    let end = 0
    for (const position of this.#bySlot()) {
      const start = this.#slots.get(position) * slotBytes
      if (start > end) yield Buffer.alloc(start - end)
      const bytes = this.#encode(this.#planned(position), this.#firstOwnBlock + this.#ownStarts.get(position))
      end = start + bytes.length
      yield bytes
    }
  }

  /**
   * All positions in the order of their places. Short inodes may fill gaps between longer ones before them: both kinds
   * are in order among themselves.
   */
  *#bySlot(): Generator<number> {
    const fillers = this.#positions({ filling: true })
    let filler = fillers.next()
    for (const position of this.#positions({ filling: false })) {
      while (filler.done !== true && this.#slots.get(filler.value) < this.#slots.get(position)) {
        yield filler.value
        filler = fillers.next()
      }
      yield position
    }
    while (filler.done !== true) {
      yield filler.value
      filler = fillers.next()
    }
  }

  /** The positions whose inodes fill gaps, or those of the others. */
  *#positions({ filling }: { filling: boolean }): Generator<number, undefined> {
    let last = -1
    for (let position = 0; position < this.#order.count; position++) {
      const slot = this.#slots.get(position)
      const fills = slot < last
      if (!fills) last = slot
      if (fills === filling) yield position
    }
  }

  #planned(position: number): Planned {
    const node = this.#tree.inodes.get(this.#order.inodeAt(position))
    const planned: Planned = {
      node,
      position,
      xattrs: encodeXattrs(node.xattrs),
      listing: undefined,
      map: undefined,
      device: 0,
      ownBlocks: 0,
      tailBytes: 0,
    }
    if (node.type === 'directory') {
      planned.listing = this.#listing(position)
      const { packed } = planned.listing
      placeTail(planned, packed.length - 1, packed.at(-1)!.usedBytes)
    } else if (node.type === 'symlink') {
      const length = node.linkTarget.length
      if (length > maxTargetBytes)
        throw new P2pfsError('unsupported', `link target of ${length} bytes; ${maxTargetBytes} is the most`)
      placeTail(planned, 0, length)
    } else if (node.type === 'character' || node.type === 'block') {
      planned.device = encodeDevice(node.device)
    } else if (node.type === 'file') {
      planned.map = this.#mapOf(node)
      if ('chunks' in planned.map) planned.tailBytes = planned.map.chunks.length * 4
    }
    return planned
  }

  #mapOf({ layer, extents, sizeBytes }: RootfsInode): FileMap {
    const runs = extents
      .filter(({ lengthBytes }) => lengthBytes > 0)
      .map(({ fileOffset, lengthBytes, segmentOffset }) => ({
        fileBlock: fileOffset / blockBytes,
        dataBlock: this.#layerBlocks[layer]! + segmentOffset / blockBytes,
        count: Math.ceil(lengthBytes / blockBytes),
      }))
    return mapFile(
      runs.sort((a, b) => a.fileBlock - b.fileBlock),
      Math.ceil(sizeBytes / blockBytes),
    )
  }

  #listing(position: number): Listing {
    const { entries } = this.#tree
    const names: ByteString[] = []
    const positions: number[] = []
    const dots = [
      { name: '.', target: position },
      { name: '..', target: this.#order.parentOf(position) },
    ]
    const add = (name: ByteString, target: number): void => {
      names.push(name)
      positions.push(target)
    }
    const addDotsBefore = (name: ByteString | undefined): void => {
      while (dots.length > 0 && (name === undefined || dots[0]!.name < name)) {
        const { name: dot, target } = dots.shift()!
        add(dot, target)
      }
    }
    for (const entry of entries.of(this.#order.inodeAt(position))) {
      const name = entries.nameOf(entry)
      addDotsBefore(name)
      add(name, this.#order.positionOf(entries.inodeOf(entry)))
    }
    addDotsBefore(undefined)
    return { names, positions, packed: packDirectory(names) }
  }

  /** The inode, its attributes, and the bytes behind them. */
  #encode(planned: Planned, firstBlock: number): Buffer {
    const { node, position, xattrs, map, ownBlocks, tailBytes } = planned
    const body = { number: position + 1, links: this.#order.linksAt(position), xattrBytes: xattrs.length }
    const behind = (rest: Omit<InodeBody, keyof typeof body>, tail?: Buffer): Buffer => {
      const inode = encodeInode(node, { ...body, ...rest })
      if (xattrs.length === 0 && tail === undefined) return inode
      const bytes = Buffer.allocUnsafeSlow(inode.length + xattrs.length + (tail?.length ?? 0))
      bytes.set(inode, 0)
      bytes.set(xattrs, inode.length)
      if (tail !== undefined) {
        bytes.set(tail, inode.length + xattrs.length)
        release(tail)
      }
      return bytes
    }
    switch (node.type) {
      case 'directory':
      case 'symlink': {
        const place = ownBlocks === 0 ? nullBlock : firstBlock
        const sizeBytes = dataBytes(planned)
        if (tailBytes === 0) return behind({ layout: 'plain', sizeBytes, place })
        return behind({ layout: 'inline', sizeBytes, place }, this.#data(planned, ownBlocks))
      }
      case 'file': {
        const { sizeBytes } = node
        if (map === undefined) throw new TypeError('file without a map')
        if ('chunks' in map)
          return behind(
            { layout: 'chunks', sizeBytes, place: map.chunkBits },
            encodeChunks(map.chunks, this.#metadataBlocks),
          )
        return behind({ layout: 'plain', sizeBytes, place: this.#metadataBlocks + map.dataBlock })
      }
      case 'character':
      case 'block':
        return behind({ layout: 'plain', sizeBytes: 0, place: planned.device })
      case 'fifo':
        return behind({ layout: 'plain', sizeBytes: 0, place: 0 })
    }
  }

  /** Block `i` of a directory or of a link target; of the last one, the used part. */
  #data({ node, listing }: Planned, i: number): Buffer {
    if (listing === undefined) return Buffer.from(node.linkTarget, 'latin1')
    const { names, positions, packed } = listing
    const { first, usedBytes } = packed[i]!
    return encodeDirectoryBlock(
      names.slice(first, packed[i + 1]?.first).map((name, j) => {
        const target = positions[first + j]!
        const type = this.#tree.inodes.typeOf(this.#order.inodeAt(target))
        return { name, type, node: this.#slots.get(target) }
      }),
      i === packed.length - 1 ? usedBytes : blockBytes,
    )
  }
}

/**
 * Puts the end of the data behind the inode where both fit into one block, as the kernel wants it; else into a block.
 */
function placeTail(planned: Planned, wholeBlockCount: number, tailBytes: number): void {
  const inline = inodeBytes + planned.xattrs.length + tailBytes <= blockBytes
  planned.tailBytes = inline ? tailBytes : 0
  planned.ownBlocks = inline ? wholeBlockCount : wholeBlockCount + 1
}

function dataBytes({ node, listing }: Planned): number {
  if (listing === undefined) return node.linkTarget.length
  const { packed } = listing
  return (packed.length - 1) * blockBytes + packed.at(-1)!.usedBytes
}

function wholeBlock(bytes: Buffer): Buffer {
  const out = Buffer.alloc(blockBytes)
  out.set(bytes)
  return out
}

/** The same bytes in whole blocks; zeros fill the last. The pieces are released. */
function* wholeBlocks(pieces: Iterable<Buffer>): Generator<Buffer> {
  let block = Buffer.alloc(blockBytes)
  let filled = 0
  for (const piece of pieces) {
    for (let offset = 0; offset < piece.length;) {
      const length = Math.min(piece.length - offset, blockBytes - filled)
      // Most pieces are short inodes. A view of one would give it an ArrayBuffer, which is larger than itself.
      block.set(length === piece.length ? piece : piece.subarray(offset, offset + length), filled)
      filled += length
      offset += length
      if (filled < blockBytes) continue
      yield block
      block = Buffer.alloc(blockBytes)
      filled = 0
    }
    if (piece.length > inodeBytes) release(piece)
  }
  if (filled > 0) yield block
}
