import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { ByteString } from '../../../protocol/layer-index.ts'
import { uuidFrom, type FilesystemPlan } from '../filesystem-plan.ts'
import type { RootfsInode, RootfsTree } from '../rootfs-tree.ts'
import { encodeDirectoryBlock, packDirectory } from './directory.ts'
import { encodeChunks, mapFile, type FileMap } from './file-map.ts'
import { blockBytes, inodeBytes, nullBlock, slotBytes, superblockBytes, superblockOffset } from './format.ts'
import { encodeDevice, encodeInode, type InodeBody } from './inode.ts'
import { SlotAllocator } from './slot-allocator.ts'
import { writeSuperblock } from './superblock.ts'
import { encodeXattrs } from './xattr.ts'

/** The longest link target in Linux, bytes. */
const maxTargetBytes = 4095

/** A name in a directory and its inode. */
interface Named {
  name: ByteString
  inode: Planned
}

/** An inode and the places of its parts. */
interface Planned {
  node: RootfsInode
  path: ByteString
  number: number
  links: number
  xattrs: Buffer
  /** Directories: all names with `.` and `..`, and how they share blocks. */
  entries: Named[]
  packed: ReturnType<typeof packDirectory>
  map: FileMap | undefined
  device: number
  /** Number of its own blocks, behind all inodes: of a directory or a long link target. */
  ownBlocks: number
  /** Bytes right behind inode and attributes: the end of a directory, a link target, or a chunk map. */
  tailBytes: number
  /** Offset on the device. */
  offset: number
  firstBlock: number
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
  const layerBlocks: number[] = []
  let dataBlocks = 0
  for (const bytes of layerBytes) {
    layerBlocks.push(dataBlocks)
    dataBlocks += bytes / blockBytes
  }
  const inodes = planInodes(tree, layerBlocks)
  const slots = new SlotAllocator(superblockOffset + superblockBytes)
  for (const inode of inodes) inode.offset = slots.allocate(inodeBytes + inode.xattrs.length + inode.tailBytes)
  let block = Math.ceil(slots.end / blockBytes)
  for (const inode of inodes) {
    inode.firstBlock = block
    block += inode.ownBlocks
  }
  if (block + dataBlocks >= 2 ** 32) throw new P2pfsError('unsupported', 'the image is larger than 16 TiB')
  return new Layout(inodes, slots.end, block, dataBlocks, uuidFrom(seed))
}

/** All inodes, the root first, a directory's children together. */
function planInodes(tree: RootfsTree, layerBlocks: readonly number[]): Planned[] {
  const planned = new Map<RootfsInode, Planned>()
  const add = (node: RootfsInode, path: ByteString): Planned => {
    const inode: Planned = {
      node,
      path,
      number: planned.size + 1,
      links: node.type === 'directory' ? 2 : 0,
      xattrs: encodeXattrs(node.xattrs, path),
      entries: [],
      packed: [],
      map: undefined,
      device: 0,
      ownBlocks: 0,
      tailBytes: 0,
      offset: 0,
      firstBlock: 0,
    }
    planned.set(node, inode)
    return inode
  }
  const root = add(tree.root, '')
  const directories = [{ directory: root, parent: root }]
  // Depth first without recursion: a path may have thousands of components.
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    const { directory, parent } = next
    const below: typeof directories = []
    const children = [...(directory.node.children ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
    const entries: Named[] = [
      { name: '.', inode: directory },
      { name: '..', inode: parent },
    ]
    for (const [name, node] of children) {
      let child = planned.get(node)
      if (child === undefined) {
        child = add(node, directory.path === '' ? name : `${directory.path}/${name}`)
        if (node.type === 'directory') below.push({ directory: child, parent: directory })
      }
      if (node.type === 'directory') directory.links++
      else child.links++
      entries.push({ name, inode: child })
    }
    directory.entries = entries.sort((a, b) => (a.name < b.name ? -1 : 1))
    directories.push(...below.toReversed())
  }
  const inodes = [...planned.values()]
  for (const inode of inodes) planContent(inode, layerBlocks)
  return inodes
}

function planContent(inode: Planned, layerBlocks: readonly number[]): void {
  const { node, path } = inode
  if (node.type === 'directory') {
    inode.packed = packDirectory(inode.entries.map(({ name }) => name))
    placeTail(inode, inode.packed.length - 1, inode.packed.at(-1)!.usedBytes)
  } else if (node.type === 'symlink') {
    const length = node.linkTarget.length
    if (length > maxTargetBytes)
      throw new P2pfsError('unsupported', `/${path}: link target of ${length} bytes; ${maxTargetBytes} is the most`, {
        path,
      })
    placeTail(inode, 0, length)
  } else if (node.type === 'character' || node.type === 'block') {
    inode.device = encodeDevice(node.device, path)
  } else if (node.type === 'file') {
    const runs = node.extents
      .filter(({ lengthBytes }) => lengthBytes > 0)
      .map(({ layer, fileOffset, lengthBytes, segmentOffset }) => ({
        fileBlock: fileOffset / blockBytes,
        dataBlock: layerBlocks[layer]! + segmentOffset / blockBytes,
        count: Math.ceil(lengthBytes / blockBytes),
      }))
    const map = mapFile(
      runs.sort((a, b) => a.fileBlock - b.fileBlock),
      Math.ceil(node.sizeBytes / blockBytes),
      path,
    )
    inode.map = map
    if ('chunks' in map) inode.tailBytes = map.chunks.length * 4
  }
}

/**
 * Puts the end of the data behind the inode where both fit into one block, as the kernel wants it; else into a block.
 */
function placeTail(inode: Planned, wholeBlocks: number, tailBytes: number): void {
  const inline = inodeBytes + inode.xattrs.length + tailBytes <= blockBytes
  inode.tailBytes = inline ? tailBytes : 0
  inode.ownBlocks = inline ? wholeBlocks : wholeBlocks + 1
}

class Layout implements FilesystemPlan {
  readonly metadataBytes: number
  readonly sizeBytes: number
  readonly #inodes: readonly Planned[]
  readonly #slotsEnd: number
  readonly #metadataBlocks: number
  readonly #uuid: Uint8Array

  constructor(
    inodes: readonly Planned[],
    slotsEnd: number,
    metadataBlocks: number,
    dataBlocks: number,
    uuid: Uint8Array,
  ) {
    this.#inodes = inodes
    this.#slotsEnd = slotsEnd
    this.#metadataBlocks = metadataBlocks
    this.#uuid = uuid
    this.metadataBytes = metadataBlocks * blockBytes
    this.sizeBytes = (metadataBlocks + dataBlocks) * blockBytes
  }

  *pieces(): Generator<Uint8Array> {
    const slots = Buffer.alloc(Math.ceil(this.#slotsEnd / blockBytes) * blockBytes)
    for (const inode of this.#inodes) slots.set(this.#encode(inode), inode.offset)
    writeSuperblock(slots.subarray(0, blockBytes), {
      totalBlocks: this.sizeBytes / blockBytes,
      inodes: this.#inodes.length,
      rootNode: nodeNumber(this.#inodes[0]!),
      chunked: this.#inodes.some(({ map }) => map !== undefined && 'chunks' in map),
      uuid: this.#uuid,
    })
    yield slots
    for (const inode of this.#inodes) {
      for (let i = 0; i < inode.ownBlocks; i++) yield wholeBlock(data(inode, i))
    }
  }

  /** The inode, its attributes, and the bytes behind them. */
  #encode(inode: Planned): Buffer {
    const { node, number, links, xattrs, map, ownBlocks, tailBytes, firstBlock } = inode
    const body = { number, links, xattrBytes: xattrs.length }
    const behind = (rest: Omit<InodeBody, keyof typeof body>, tail: Buffer = Buffer.alloc(0)): Buffer =>
      Buffer.concat([encodeInode(node, { ...body, ...rest }), xattrs, tail])
    switch (node.type) {
      case 'directory':
      case 'symlink': {
        const place = ownBlocks === 0 ? nullBlock : firstBlock
        const sizeBytes = dataBytes(inode)
        if (tailBytes === 0) return behind({ layout: 'plain', sizeBytes, place })
        return behind({ layout: 'inline', sizeBytes, place }, data(inode, ownBlocks))
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
        return behind({ layout: 'plain', sizeBytes: 0, place: inode.device })
      case 'fifo':
        return behind({ layout: 'plain', sizeBytes: 0, place: 0 })
    }
  }
}

const nodeNumber = ({ offset }: Planned): number => offset / slotBytes

function dataBytes({ node, packed }: Planned): number {
  if (node.type === 'symlink') return node.linkTarget.length
  return (packed.length - 1) * blockBytes + packed.at(-1)!.usedBytes
}

/** Block `i` of a directory or of a link target; of the last one, the used part. */
function data({ node, entries, packed }: Planned, i: number): Buffer {
  if (node.type === 'symlink') return Buffer.from(node.linkTarget, 'latin1')
  const { first, usedBytes } = packed[i]!
  const here = entries.slice(first, packed[i + 1]?.first)
  return encodeDirectoryBlock(
    here.map(({ name, inode }) => ({ name, type: inode.node.type, node: nodeNumber(inode) })),
    i === packed.length - 1 ? usedBytes : blockBytes,
  )
}

function wholeBlock(bytes: Buffer): Buffer {
  const out = Buffer.alloc(blockBytes)
  out.set(bytes)
  return out
}
