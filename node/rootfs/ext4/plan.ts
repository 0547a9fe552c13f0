import type { ByteString } from '../../../protocol/layer-entry.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { namingPath, uuidFrom, type FilesystemPlan } from '../filesystem-plan.ts'
import { Column } from '../column.ts'
import { InodeOrder } from '../tree/inode-order.ts'
import type { RootfsInode } from '../tree/rootfs-inode.ts'
import type { RootfsTree } from '../tree/rootfs-tree.ts'
import { BitRuns } from './bitmap.ts'
import { planDirectory } from './directory.ts'
import { encodeExtents, extentTreeBlocks, normaliseRuns, type BlockRun } from './extents.ts'
import {
  blockBytes,
  descriptorBytes,
  firstInode,
  inodeBytes,
  inodesPerBlock,
  maxPerGroup,
  rootInode,
} from './format.ts'
import { encodeDevice, encodeInode } from './inode.ts'
import { encodeDescriptor, encodeSuperblock, type Geometry, type GroupDescriptor } from './superblock.ts'
import { encodeXattrs } from './xattr.ts'

/** The most names of a file. */
const maxFileLinks = 65_000
/** A longer link target has a block of its own, bytes. */
const maxShortTarget = 59

/** An inode with the parts that do not depend on the layout. */
interface Planned {
  node: RootfsInode
  number: number
  links: number
  /** Blocks of a directory, or of the target of a long link. */
  contentBlocks: number
  xattrs: ReturnType<typeof encodeXattrs>
  /** Blocks of a file's content, counted over the layers' data segments. */
  runs: BlockRun[]
  treeBlocks: number
  /** Its own blocks in the metadata segment: content, extent tree, attributes, in this order. */
  ownBlocks: number
}

/**
 * Lays out an ext4 filesystem. Its metadata is one segment at the front; file contents stay in the layers' data
 * segments. The metadata segment has, in order: superblock, group descriptors, the blocks of directories, links, extent
 * trees and attributes in the order of the tree, inode tables, bitmaps.
 *
 * @param layerBytes size of each layer's data segment, a multiple of 4096, lowest first
 * @param seed decides on the UUID and the directory hash
 * @throws unsupported, naming the path, for an entry that ext4 cannot hold
 */
export function planExt4(tree: RootfsTree, layerBytes: readonly number[], seed: Digest): FilesystemPlan {
  return new Ext4Plan(tree, layerBytes, uuidFrom(seed))
}

/** Chooses groups of 128 MiB, or smaller ones where there are more inodes than those could have. */
function fit(
  lastInode: number,
  ownBlocks: number,
  dataBlocks: number,
): Geometry & { metadataBlocks: number; tableBlocks: number } {
  for (let groups = 1; ;) {
    const inodesPerGroup = Math.ceil(Math.ceil(lastInode / groups) / inodesPerBlock) * inodesPerBlock
    if (inodesPerGroup > maxPerGroup) {
      groups = Math.ceil(lastInode / maxPerGroup)
      continue
    }
    const tableBlocks = inodesPerGroup / inodesPerBlock
    const metadataBlocks =
      1 + Math.ceil((groups * descriptorBytes) / blockBytes) + ownBlocks + groups * (tableBlocks + 2)
    const totalBlocks = metadataBlocks + dataBlocks
    if (totalBlocks >= 2 ** 32) throw new P2pfsError('unsupported', 'the image is larger than 16 TiB')
    const needed = Math.ceil(totalBlocks / maxPerGroup)
    if (needed > groups) {
      groups = needed
      continue
    }
    // A multiple of 8 that gives exactly so many groups.
    const blocksPerGroup = needed === groups ? maxPerGroup : Math.ceil(Math.ceil(totalBlocks / groups) / 8) * 8
    if (Math.ceil(totalBlocks / blocksPerGroup) !== groups) {
      groups = Math.ceil(totalBlocks / blocksPerGroup)
      if (Math.ceil(lastInode / groups) > maxPerGroup) throw new TypeError('no group size fits')
      continue
    }
    return { totalBlocks, blocksPerGroup, inodesPerGroup, groups, metadataBlocks, tableBlocks }
  }
}

/** @throws unsupported for an inode that ext4 cannot hold */
function check({ node, links }: Planned): void {
  const { type, linkTarget, sizeBytes } = node
  const fail = (message: string): never => {
    throw new P2pfsError('unsupported', message)
  }
  if (type !== 'directory' && links > maxFileLinks) fail(`more hard links than ext4 can count: ${maxFileLinks}`)
  if (linkTarget.length >= blockBytes) fail(`link target of ${linkTarget.length} bytes; ${blockBytes - 1} is the most`)
  if (type === 'file' && sizeBytes > 2 ** 32 * blockBytes)
    fail(`${sizeBytes} bytes are more than an ext4 file can have`)
  if (type === 'character' || type === 'block') encodeDevice(node.device)
}

/** The root is number 2; the others follow each other from 11 on. */
const numberOf = (position: number): number => (position === 0 ? rootInode : firstInode - 1 + position)

class Ext4Plan implements FilesystemPlan {
  readonly metadataBytes: number
  readonly sizeBytes: number
  readonly #tree: RootfsTree
  readonly #order: InodeOrder
  readonly #geometry: ReturnType<typeof fit>
  readonly #uuid: Uint8Array
  readonly #hashSeed: Uint32Array
  /** First block of each layer's data segment, counted over all of them. */
  readonly #layerBlocks: number[] = []
  /** By position, the blocks of a directory. An htree is expensive to plan again. */
  readonly #directoryBlocks = new Column(Uint32Array)
  readonly #tables: number
  readonly #bitmaps: number

  constructor(tree: RootfsTree, layerBytes: readonly number[], uuid: Uint8Array) {
    this.#tree = tree
    this.#uuid = uuid
    this.#hashSeed = new Uint32Array(uuid.buffer.slice(uuid.byteOffset, uuid.byteOffset + 16))
    this.#order = new InodeOrder(tree)
    let dataBlocks = 0
    for (const bytes of layerBytes) {
      this.#layerBlocks.push(dataBlocks)
      dataBlocks += bytes / blockBytes
    }
    let ownBlocks = 0
    for (let position = 0; position < this.#order.count; position++) {
      const inode = this.#order.inodeAt(position)
      const isDirectory = tree.inodes.typeOf(inode) === 'directory'
      ownBlocks += namingPath(tree, inode, () => {
        this.#directoryBlocks.push(isDirectory ? this.#directory(position).blockCount : 0)
        const planned = this.#planned(position)
        check(planned)
        return planned.ownBlocks
      })
    }
    const geometry = fit(this.#lastInode, ownBlocks, dataBlocks)
    this.#geometry = geometry
    this.metadataBytes = geometry.metadataBlocks * blockBytes
    this.sizeBytes = geometry.totalBlocks * blockBytes
    this.#tables = this.#firstOwnBlock + ownBlocks
    this.#bitmaps = this.#tables + geometry.groups * geometry.tableBlocks
  }

  *pieces(): Generator<Uint8Array> {
    const { totalBlocks, groups, blocksPerGroup, inodesPerGroup, metadataBlocks, tableBlocks } = this.#geometry
    const used = new BitRuns(groups * blocksPerGroup)
    used.set(0, metadataBlocks)
    const directories = new Uint32Array(groups)
    for (let position = 0; position < this.#order.count; position++) {
      const node = this.#tree.inodes.get(this.#order.inodeAt(position))
      for (const { deviceBlock, count } of this.#runsOf(node))
        used.set(metadataBlocks + deviceBlock, metadataBlocks + deviceBlock + count)
      if (node.type === 'directory') directories[Math.floor((numberOf(position) - 1) / inodesPerGroup)]!++
    }
    const lastInode = this.#lastInode
    const descriptors: GroupDescriptor[] = []
    for (let group = 0; group < groups; group++) {
      const start = group * blocksPerGroup
      const end = Math.min(start + blocksPerGroup, totalBlocks)
      descriptors.push({
        blockBitmap: this.#bitmaps + group,
        inodeBitmap: this.#bitmaps + groups + group,
        inodeTable: this.#tables + group * tableBlocks,
        freeBlocks: end - start - used.count(start, end),
        freeInodes: inodesPerGroup - Math.min(Math.max(lastInode - group * inodesPerGroup, 0), inodesPerGroup),
        directories: directories[group]!,
      })
    }
    const free = {
      blocks: descriptors.reduce((sum, { freeBlocks }) => sum + freeBlocks, 0),
      inodes: descriptors.reduce((sum, { freeInodes }) => sum + freeInodes, 0),
    }
    const first = Buffer.alloc(blockBytes)
    first.set(encodeSuperblock(this.#geometry, free, this.#uuid), 1024)
    yield first
    yield wholeBlocks(Buffer.concat(descriptors.map(encodeDescriptor)))
    let block = this.#firstOwnBlock
    for (let position = 0; position < this.#order.count; position++) {
      const planned = this.#planned(position)
      yield* this.#blocksOf(planned, position, block)
      block += planned.ownBlocks
    }
    yield* this.#inodeTables()
    // Blocks behind the end of the device are not free.
    used.set(totalBlocks, groups * blocksPerGroup)
    for (let group = 0; group < groups; group++) {
      yield bitmapBlock(used.bytes.subarray((group * blocksPerGroup) / 8, ((group + 1) * blocksPerGroup) / 8))
    }
    for (let group = 0; group < groups; group++) {
      const bits = new BitRuns(inodesPerGroup)
      bits.set(0, Math.min(Math.max(lastInode - group * inodesPerGroup, 0), inodesPerGroup))
      yield bitmapBlock(bits.bytes)
    }
  }

  get #lastInode(): number {
    return firstInode - 2 + this.#order.count
  }

  /** The superblock and the group descriptors stand before it. */
  get #firstOwnBlock(): number {
    return 1 + Math.ceil((this.#geometry.groups * descriptorBytes) / blockBytes)
  }

  #planned(position: number): Planned {
    const inode = this.#order.inodeAt(position)
    const node = this.#tree.inodes.get(inode)
    const contentBlocks =
      node.type === 'symlink' && node.linkTarget.length > maxShortTarget ? 1 : this.#directoryBlocks.get(position)
    const xattrs = encodeXattrs(node.xattrs)
    const runs = this.#runsOf(node)
    const treeBlocks = node.type === 'file' ? extentTreeBlocks(runs.length) : 0
    return {
      node,
      number: numberOf(position),
      links: this.#order.linksAt(position),
      contentBlocks,
      xattrs,
      runs,
      treeBlocks,
      ownBlocks: contentBlocks + treeBlocks + (xattrs.block === undefined ? 0 : 1),
    }
  }

  /** A file's content, in blocks counted over the layers' data segments. */
  #runsOf({ type, layer, extents }: RootfsInode): BlockRun[] {
    if (type !== 'file' || extents.length === 0) return []
    const runs: BlockRun[] = []
    for (const { fileOffset, lengthBytes, segmentOffset } of extents) {
      if (fileOffset % blockBytes !== 0 || segmentOffset % blockBytes !== 0)
        throw new TypeError('extent is not on a block boundary')
      if (lengthBytes === 0) continue
      runs.push({
        fileBlock: fileOffset / blockBytes,
        deviceBlock: this.#layerBlocks[layer]! + segmentOffset / blockBytes,
        count: Math.ceil(lengthBytes / blockBytes),
      })
    }
    return normaliseRuns(runs)
  }

  #directory(position: number): ReturnType<typeof planDirectory> {
    const { entries, inodes } = this.#tree
    const children = Uint32Array.from(entries.of(this.#order.inodeAt(position)))
    const childOf = (index: number): number => entries.inodeOf(children[index]!)
    return planDirectory(
      {
        self: numberOf(position),
        parent: numberOf(this.#order.parentOf(position)),
        count: children.length,
        name: (index) => entries.nameOf(children[index]!),
        inode: (index) => numberOf(this.#order.positionOf(childOf(index))),
        type: (index) => inodes.typeOf(childOf(index)),
      },
      this.#hashSeed,
    )
  }

  /** The extents of a file, directory or long link. @param firstBlock of its own blocks */
  #extents({ node, runs, contentBlocks }: Planned, firstBlock: number): { root: Buffer; blocks: Buffer[] } {
    const { metadataBlocks } = this.#geometry
    const onDevice =
      node.type === 'file'
        ? runs.map((run) => ({ ...run, deviceBlock: metadataBlocks + run.deviceBlock }))
        : normaliseRuns(contentBlocks === 0 ? [] : [{ fileBlock: 0, deviceBlock: firstBlock, count: contentBlocks }])
    return encodeExtents(onDevice, firstBlock + contentBlocks)
  }

  *#blocksOf(planned: Planned, position: number, firstBlock: number): Generator<Uint8Array> {
    const { node, contentBlocks, treeBlocks, xattrs } = planned
    if (node.type === 'directory') yield* this.#directory(position).blocks()
    else if (contentBlocks > 0) yield wholeBlocks(Buffer.from(node.linkTarget, 'latin1'))
    if (treeBlocks > 0) yield* this.#extents(planned, firstBlock).blocks
    if (xattrs.block !== undefined) yield xattrs.block
  }

  *#inodeTables(): Generator<Uint8Array> {
    const { groups, inodesPerGroup } = this.#geometry
    let position = 0
    let firstBlock = this.#firstOwnBlock
    for (let first = 1; first <= groups * inodesPerGroup; first += inodesPerBlock) {
      const block = Buffer.alloc(blockBytes)
      for (; position < this.#order.count && numberOf(position) < first + inodesPerBlock; position++) {
        const planned = this.#planned(position)
        block.set(this.#encode(planned, firstBlock), (planned.number - first) * inodeBytes)
        firstBlock += planned.ownBlocks
      }
      yield block
    }
  }

  #encode(planned: Planned, firstBlock: number): Buffer {
    const { node, links, contentBlocks, xattrs, treeBlocks, ownBlocks, runs } = planned
    const body = {
      links,
      indexed: node.type === 'directory' && contentBlocks > 1,
      inInodeXattrs: xattrs.inInode,
      xattrBlock: xattrs.block === undefined ? 0 : firstBlock + contentBlocks + treeBlocks,
      blocks: ownBlocks,
      sizeBytes: 0,
      extents: false,
    }
    switch (node.type) {
      case 'file': {
        const dataBlocks = runs.reduce((sum, { count }) => sum + count, 0)
        const { root } = this.#extents(planned, firstBlock)
        return encodeInode(node, {
          ...body,
          sizeBytes: node.sizeBytes,
          blocks: ownBlocks + dataBlocks,
          block: root,
          extents: true,
        })
      }
      case 'directory': {
        const { root } = this.#extents(planned, firstBlock)
        return encodeInode(node, { ...body, sizeBytes: contentBlocks * blockBytes, block: root, extents: true })
      }
      case 'symlink': {
        const long = contentBlocks > 0
        const block = long ? this.#extents(planned, firstBlock).root : shortTarget(node.linkTarget)
        return encodeInode(node, { ...body, sizeBytes: node.linkTarget.length, block, extents: long })
      }
      case 'character':
      case 'block':
        return encodeInode(node, { ...body, block: encodeDevice(node.device) })
      case 'fifo':
        return encodeInode(node, { ...body, block: Buffer.alloc(60) })
    }
  }
}

function shortTarget(target: ByteString): Buffer {
  const block = Buffer.alloc(60)
  block.write(target, 'latin1')
  return block
}

function wholeBlocks(bytes: Buffer): Buffer {
  const out = Buffer.alloc(Math.ceil(bytes.length / blockBytes) * blockBytes)
  out.set(bytes)
  return out
}

/** A bitmap's block; unused bits are set. */
function bitmapBlock(bits: Uint8Array): Buffer {
  const block = Buffer.alloc(blockBytes, 0xff)
  block.set(bits)
  return block
}
