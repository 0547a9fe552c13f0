import { blockBytes } from '../../../protocol/chunk-table.ts'
import type { BytePool } from './byte-pool.ts'
import { Column, WideColumn } from '../column.ts'
import { inodeTypes, type FileExtent, type InodeType, type RootfsInode, type Xattr } from './rootfs-inode.ts'

/*
 * The first word of an inode, from its lowest bit on: 3 bits of type, 12 of mode, one that is set where the content is a
 * list of extents, 16 of layer.
 */
const modeShift = 3
const listBit = 1 << 15
const layerShift = 16
const extentNumbers = 3
const none: readonly never[] = []

/**
 * The inodes of a tree. An image may have millions of them, so they are rows of numbers, of some 40 bytes each, and
 * objects only while somebody looks at them.
 */
export class InodeTable {
  readonly #words = new Column(Uint32Array)
  readonly #uids = new Column(Uint32Array)
  readonly #gids = new Column(Uint32Array)
  readonly #seconds = new WideColumn()
  readonly #nanoseconds = new Column(Uint32Array)
  /** Size of a file; minor number of a device. */
  readonly #sizes = new WideColumn()
  /**
   * One number, whose meaning the kind of inode decides. A file with one run of blocks: the first block plus 1. Another
   * file: the begin of its list of extents. A symbolic link: the place of its target. A device: its major number.
   */
  readonly #contents = new Column(Uint32Array)
  /** Place of the extended attributes plus 1. */
  readonly #xattrs = new Column(Uint32Array)
  /** Lists of extents: their count, then the numbers of each. */
  readonly #extents = new Column(Float64Array)
  readonly #pool: BytePool

  constructor(pool: BytePool) {
    this.#pool = pool
  }

  get count(): number {
    return this.#words.length
  }

  add(inode: RootfsInode): number {
    const number = this.#words.push(0)
    for (const column of [this.#uids, this.#gids, this.#nanoseconds, this.#contents, this.#xattrs]) column.push(0)
    this.#seconds.push(0)
    this.#sizes.push(0)
    this.set(number, inode)
    return number
  }

  set(number: number, inode: RootfsInode): void {
    const { type, mode, layer, extents, sizeBytes, device } = inode
    const isDevice = type === 'character' || type === 'block'
    const isList = type === 'file' && !isOneRun(inode)
    const word = inodeTypes.indexOf(type) | (mode << modeShift) | (isList ? listBit : 0) | (layer << layerShift)
    this.#words.set(number, word)
    this.#uids.set(number, inode.uid)
    this.#gids.set(number, inode.gid)
    this.#seconds.set(number, inode.mtime.seconds)
    this.#nanoseconds.set(number, inode.mtime.nanoseconds)
    this.#sizes.set(number, isDevice ? device.minor : sizeBytes)
    this.#xattrs.set(number, inode.xattrs.length === 0 ? 0 : this.#pool.add(encodeXattrs(inode.xattrs)) + 1)
    if (isList) this.#contents.set(number, this.#addExtents(extents))
    else if (type === 'file')
      this.#contents.set(number, extents.length === 0 ? 0 : 1 + extents[0]!.segmentOffset / blockBytes)
    else if (type === 'symlink') this.#contents.set(number, this.#pool.add(inode.linkTarget))
    else this.#contents.set(number, isDevice ? device.major : 0)
  }

  get(number: number): RootfsInode {
    const type = this.typeOf(number)
    const isDevice = type === 'character' || type === 'block'
    const size = this.#sizes.get(number)
    const content = this.#contents.get(number)
    return {
      type,
      mode: (this.#words.get(number) >>> modeShift) & 0o7777,
      uid: this.#uids.get(number),
      gid: this.#gids.get(number),
      mtime: { seconds: this.#seconds.get(number), nanoseconds: this.#nanoseconds.get(number) },
      xattrs: this.xattrsOf(number),
      linkTarget: type === 'symlink' ? this.#pool.stringAt(content) : '',
      device: isDevice ? { major: content, minor: size } : { major: 0, minor: 0 },
      sizeBytes: isDevice ? 0 : size,
      layer: this.#words.get(number) >>> layerShift,
      extents: type === 'file' ? this.#extentsOf(number) : none,
    }
  }

  typeOf(number: number): InodeType {
    return inodeTypes[this.#words.get(number) & ((1 << modeShift) - 1)]!
  }

  xattrsOf(number: number): readonly Xattr[] {
    const place = this.#xattrs.get(number)
    return place === 0 ? none : decodeXattrs(this.#pool.bytesAt(place - 1))
  }

  #extentsOf(number: number): readonly FileExtent[] {
    const content = this.#contents.get(number)
    if ((this.#words.get(number) & listBit) === 0) {
      if (content === 0) return none
      return [{ fileOffset: 0, lengthBytes: this.#sizes.get(number), segmentOffset: (content - 1) * blockBytes }]
    }
    return Array.from({ length: this.#extents.get(content) }, (_, i) => {
      const index = content + 1 + i * extentNumbers
      return {
        fileOffset: this.#extents.get(index),
        lengthBytes: this.#extents.get(index + 1),
        segmentOffset: this.#extents.get(index + 2),
      }
    })
  }

  #addExtents(extents: readonly FileExtent[]): number {
    const start = this.#extents.push(extents.length)
    for (const { fileOffset, lengthBytes, segmentOffset } of extents) {
      this.#extents.push(fileOffset)
      this.#extents.push(lengthBytes)
      this.#extents.push(segmentOffset)
    }
    return start
  }
}

/** Whether the content is nothing, or one run of blocks without holes. */
function isOneRun({ sizeBytes, extents: [first, second] }: RootfsInode): boolean {
  if (first === undefined) return true
  const { fileOffset, lengthBytes, segmentOffset } = first
  return (
    second === undefined &&
    fileOffset === 0 &&
    lengthBytes === sizeBytes &&
    segmentOffset % blockBytes === 0 &&
    segmentOffset / blockBytes < 2 ** 32 - 1
  )
}

function encodeXattrs(xattrs: readonly Xattr[]): Buffer {
  return Buffer.concat(
    xattrs.flatMap(({ name, value }) => {
      const lengths = Buffer.alloc(8)
      lengths.writeUInt32LE(name.length, 0)
      lengths.writeUInt32LE(value.length, 4)
      return [lengths, Buffer.from(name, 'latin1'), value]
    }),
  )
}

function decodeXattrs(bytes: Buffer): Xattr[] {
  const xattrs: Xattr[] = []
  for (let offset = 0; offset < bytes.length;) {
    const nameEnd = offset + 8 + bytes.readUInt32LE(offset)
    const valueEnd = nameEnd + bytes.readUInt32LE(offset + 4)
    xattrs.push({ name: bytes.toString('latin1', offset + 8, nameEnd), value: bytes.subarray(nameEnd, valueEnd) })
    offset = valueEnd
  }
  return xattrs
}
