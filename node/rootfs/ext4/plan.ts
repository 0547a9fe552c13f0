import type { ByteString } from '../../../protocol/layer-index.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { uuidFrom, type FilesystemPlan } from '../filesystem-plan.ts'
import type { RootfsInode, RootfsTree } from '../rootfs-tree.ts'
import { BitRuns } from './bitmap.ts'
import { encodeDirectory } from './directory.ts'
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

/** An inode with its number and its own blocks in the metadata segment. */
interface Planned {
  node: RootfsInode
  path: ByteString
  number: number
  parent: number
  links: number
  /** Directory blocks, or the target of a long symlink. */
  content: Buffer[]
  indexed: boolean
  xattrs: ReturnType<typeof encodeXattrs>
  /** Extents of a file; device blocks count within the layer's data segment until the layout is known. */
  runs: { layer: number; run: BlockRun }[]
  /** First of its own blocks in the metadata segment: content, extent tree, attributes, in this order. */
  firstBlock: number
  treeBlocks: number
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
  const uuid = uuidFrom(seed)
  const hashSeed = new Uint32Array(uuid.buffer.slice(uuid.byteOffset, uuid.byteOffset + 16))
  const inodes = planInodes(tree, hashSeed)
  const ownBlocks = inodes.reduce((sum, inode) => sum + blocksOf(inode), 0)
  const dataBlocks = layerBytes.reduce((sum, bytes) => sum + bytes, 0) / blockBytes
  const geometry = fit(firstInode - 2 + inodes.length, ownBlocks, dataBlocks)
  return new Layout(inodes, geometry, ownBlocks, layerBytes, uuid)
}

/** Numbers all inodes, a directory's children together, and makes the parts that do not depend on the layout. */
function planInodes(tree: RootfsTree, hashSeed: Uint32Array): Planned[] {
  const planned = new Map<RootfsInode, Planned>()
  const add = (node: RootfsInode, path: ByteString, number: number, parent: number): Planned => {
    const inode: Planned = {
      node,
      path,
      number,
      parent,
      links: node.type === 'directory' ? 2 : 0,
      content: [],
      indexed: false,
      xattrs: encodeXattrs(node.xattrs, path),
      runs: [],
      firstBlock: 0,
      treeBlocks: 0,
    }
    planned.set(node, inode)
    return inode
  }
  let next = firstInode
  const directories = [add(tree.root, '', rootInode, rootInode)]
  // Depth first without recursion: a path may have thousands of components.
  for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
    const below: Planned[] = []
    const children = [...(directory.node.children ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
    const entries = children.map(([name, node]) => {
      let child = planned.get(node)
      if (child === undefined) {
        child = add(node, directory.path === '' ? name : `${directory.path}/${name}`, next++, directory.number)
        if (node.type === 'directory') below.push(child)
      }
      if (node.type === 'directory') directory.links++
      else if (++child.links > 65_000)
        throw new P2pfsError('unsupported', `/${child.path} has more hard links than ext4 can count: 65000`, {
          path: child.path,
        })
      return { name, inode: child.number, type: node.type }
    })
    const { blocks, indexed } = encodeDirectory(directory.number, directory.parent, entries, hashSeed)
    directory.content = blocks
    directory.indexed = indexed
    directories.push(...below.toReversed())
  }
  const inodes = [...planned.values()].sort((a, b) => a.number - b.number)
  for (const inode of inodes) planContent(inode)
  return inodes
}

function planContent(inode: Planned): void {
  const { node, path } = inode
  if (node.type === 'symlink' && node.linkTarget.length >= 60) {
    if (node.linkTarget.length >= blockBytes)
      throw new P2pfsError(
        'unsupported',
        `/${path}: link target of ${node.linkTarget.length} bytes; 4095 is the most`,
        { path },
      )
    const block = Buffer.alloc(blockBytes)
    block.write(node.linkTarget, 'latin1')
    inode.content = [block]
  }
  if (node.type !== 'file') return
  for (const { layer, fileOffset, lengthBytes, segmentOffset } of node.extents) {
    if (fileOffset % blockBytes !== 0 || segmentOffset % blockBytes !== 0)
      throw new TypeError(`extent of /${path} is not on a block boundary`)
    if (lengthBytes === 0) continue
    inode.runs.push({
      layer,
      run: {
        fileBlock: fileOffset / blockBytes,
        deviceBlock: segmentOffset / blockBytes,
        count: Math.ceil(lengthBytes / blockBytes),
      },
    })
  }
  if (node.sizeBytes > 2 ** 32 * blockBytes)
    throw new P2pfsError('unsupported', `/${path}: ${node.sizeBytes} bytes are more than an ext4 file can have`, {
      path,
    })
  // The extents of a file are of one layer, so device blocks within its data segment give the right number.
  inode.treeBlocks = extentTreeBlocks(normaliseRuns(inode.runs.map(({ run }) => run)).length)
}

function blocksOf(inode: Planned): number {
  return inode.content.length + inode.treeBlocks + (inode.xattrs.block === undefined ? 0 : 1)
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

class Layout implements FilesystemPlan {
  readonly metadataBytes: number
  readonly sizeBytes: number
  readonly #inodes: readonly Planned[]
  readonly #geometry: ReturnType<typeof fit>
  readonly #uuid: Uint8Array
  /** Device block at which each layer's data segment begins. */
  readonly #layerBlocks: number[] = []
  readonly #tables: number
  readonly #bitmaps: number

  constructor(
    inodes: readonly Planned[],
    geometry: ReturnType<typeof fit>,
    ownBlocks: number,
    layerBytes: readonly number[],
    uuid: Uint8Array,
  ) {
    this.#inodes = inodes
    this.#geometry = geometry
    this.#uuid = uuid
    this.metadataBytes = geometry.metadataBlocks * blockBytes
    this.sizeBytes = geometry.totalBlocks * blockBytes
    let block = geometry.metadataBlocks
    for (const bytes of layerBytes) {
      this.#layerBlocks.push(block)
      block += bytes / blockBytes
    }
    let own = 1 + Math.ceil((geometry.groups * descriptorBytes) / blockBytes)
    this.#tables = own + ownBlocks
    this.#bitmaps = this.#tables + geometry.groups * geometry.tableBlocks
    for (const inode of inodes) {
      inode.firstBlock = own
      own += blocksOf(inode)
    }
  }

  *pieces(): Generator<Uint8Array> {
    const { totalBlocks, groups, blocksPerGroup, inodesPerGroup, metadataBlocks, tableBlocks } = this.#geometry
    const used = new BitRuns(groups * blocksPerGroup)
    used.set(0, metadataBlocks)
    const directories = new Uint32Array(groups)
    for (const inode of this.#inodes) {
      for (const { deviceBlock, count } of this.#runs(inode)) used.set(deviceBlock, deviceBlock + count)
      if (inode.node.type === 'directory') directories[Math.floor((inode.number - 1) / inodesPerGroup)]!++
    }
    const lastInode = firstInode - 2 + this.#inodes.length
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
    for (const inode of this.#inodes) yield* this.#ownBlocks(inode)
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

  /** A file's content in the layers' data segments. */
  #runs(inode: Planned): BlockRun[] {
    return normaliseRuns(
      inode.runs.map(({ layer, run }) => ({ ...run, deviceBlock: run.deviceBlock + this.#layerBlocks[layer]! })),
    )
  }

  /** The extents of a file, directory or long link. */
  #extents(inode: Planned): { root: Buffer; blocks: Buffer[] } {
    const { node, content, firstBlock } = inode
    const runs =
      node.type === 'file'
        ? this.#runs(inode)
        : normaliseRuns(content.length === 0 ? [] : [{ fileBlock: 0, deviceBlock: firstBlock, count: content.length }])
    return encodeExtents(runs, firstBlock + content.length)
  }

  *#ownBlocks(inode: Planned): Generator<Uint8Array> {
    yield* inode.content
    if (inode.treeBlocks > 0) yield* this.#extents(inode).blocks
    if (inode.xattrs.block !== undefined) yield inode.xattrs.block
  }

  *#inodeTables(): Generator<Uint8Array> {
    const { groups, inodesPerGroup } = this.#geometry
    // The root is number 2; inodes from 11 on follow it in the list.
    const planned = (number: number): Planned | undefined =>
      number === rootInode ? this.#inodes[0] : number < firstInode ? undefined : this.#inodes[number - firstInode + 1]
    for (let first = 1; first <= groups * inodesPerGroup; first += inodesPerBlock) {
      const block = Buffer.alloc(blockBytes)
      for (let i = 0; i < inodesPerBlock; i++) {
        const inode = planned(first + i)
        if (inode !== undefined) block.set(this.#encode(inode), i * inodeBytes)
      }
      yield block
    }
  }

  #encode(inode: Planned): Buffer {
    const { node, path, links, content, indexed, xattrs, treeBlocks, firstBlock } = inode
    const body = {
      links,
      indexed,
      inInodeXattrs: xattrs.inInode,
      xattrBlock: xattrs.block === undefined ? 0 : firstBlock + content.length + treeBlocks,
    }
    const own = blocksOf(inode)
    switch (node.type) {
      case 'file': {
        const data = inode.runs.reduce((sum, { run }) => sum + run.count, 0)
        return encodeInode(node, {
          ...body,
          sizeBytes: node.sizeBytes,
          blocks: own + data,
          block: this.#extents(inode).root,
          extents: true,
        })
      }
      case 'directory':
        return encodeInode(node, {
          ...body,
          sizeBytes: content.length * blockBytes,
          blocks: own,
          block: this.#extents(inode).root,
          extents: true,
        })
      case 'symlink': {
        const long = content.length > 0
        const block = long ? this.#extents(inode).root : shortTarget(node.linkTarget)
        return encodeInode(node, { ...body, sizeBytes: node.linkTarget.length, blocks: own, block, extents: long })
      }
      case 'character':
      case 'block':
        return encodeInode(node, {
          ...body,
          sizeBytes: 0,
          blocks: own,
          block: encodeDevice(node.device, path),
          extents: false,
        })
      case 'fifo':
        return encodeInode(node, { ...body, sizeBytes: 0, blocks: own, block: Buffer.alloc(60), extents: false })
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
