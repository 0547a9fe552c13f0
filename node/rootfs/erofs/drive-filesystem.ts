import { encodeDevices, setDeviceTable } from './device-table.ts'
import { encodeDirectoryBlock } from './directory.ts'
import {
  blockBytes,
  deviceSlotBytes,
  inodeBytes,
  layouts,
  slotBytes,
  superblockBytes,
  superblockOffset,
} from './format.ts'
import { writeSuperblock } from './superblock.ts'

/** The only file. */
const fileName = 'rootfs.img'
/** The smallest chunk of the file's map, as a power of two of blocks: 256 KiB. */
const minChunkBits = 6
/** Bound on the map, entries of 8 bytes: all of it stays in memory once it was read. */
const maxChunks = 1024 * 1024
/** The map has entries with a device: EROFS_CHUNK_FORMAT_INDEXES. */
const withDevice = 0x20
const indexBytes = 8

/** An EROFS filesystem with one file, which is the contents of others one after the other. */
export interface DriveFilesystem {
  /** Its own bytes; the rest of the last block, and the pieces, follow. */
  head: Buffer
  /**
   * Parts of the file in which one device ends and another begins: the kernel maps chunks of one size. They stand
   * behind the head, each from a new chunk's worth of blocks (bytes of the file).
   */
  pieces: { offset: number; lengthBytes: number; at: number }[]
}

/**
 * Lays out the filesystem of a drive: `rootfs.img` is the devices' contents, in order, and nothing of them is copied
 * but for the pieces.
 * @param deviceBytes length of each device, a multiple of 4096; empty ones are left out by the caller
 * @param uuid 16 bytes
 */
export function planDriveFilesystem(deviceBytes: readonly number[], uuid: Uint8Array): DriveFilesystem {
  const sizeBytes = deviceBytes.reduce((sum, bytes) => sum + bytes, 0)
  let chunkBits = minChunkBits
  while (sizeBytes / (blockBytes << chunkBits) > maxChunks) chunkBits++
  const chunkBytes = blockBytes * 2 ** chunkBits
  const chunks = Math.ceil(sizeBytes / chunkBytes)

  const tableOffset = superblockOffset + superblockBytes
  const entries = [
    { name: '.', type: 'directory' },
    { name: '..', type: 'directory' },
    { name: fileName, type: 'file' },
  ] as const
  const namesBytes = entries.reduce((sum, { name }) => sum + 12 + name.length, 0)
  const root = within1Block(
    align(tableOffset + deviceBytes.length * deviceSlotBytes, slotBytes),
    inodeBytes + namesBytes,
  )
  const file = align(root + inodeBytes + namesBytes, slotBytes)
  const map = file + inodeBytes
  const headBlocks = Math.ceil((map + chunks * indexBytes) / blockBytes)

  const head = Buffer.alloc(headBlocks * blockBytes)
  const pieces: DriveFilesystem['pieces'] = []
  encodeDevices(deviceBytes.map((bytes) => ({ blocks: bytes / blockBytes, firstBlock: 0 }))).copy(head, tableOffset)
  writeInode(head, root, {
    layout: 'inline',
    mode: 0o040555,
    sizeBytes: namesBytes,
    place: 0xffffffff,
    links: 2,
    number: 1,
  })
  const nodes = [root, root, file].map((at) => at / slotBytes)
  encodeDirectoryBlock(
    entries.map((entry, i) => ({ ...entry, node: nodes[i]! })),
    namesBytes,
  ).copy(head, root + inodeBytes)
  writeInode(head, file, {
    layout: 'chunks',
    mode: 0o100400,
    sizeBytes,
    place: chunkBits | withDevice,
    links: 1,
    number: 2,
  })
  let device = 0
  let deviceStart = 0
  let nextPiece = headBlocks
  for (let chunk = 0; chunk < chunks; chunk++) {
    const offset = chunk * chunkBytes
    while (offset >= deviceStart + deviceBytes[device]!) deviceStart += deviceBytes[device++]!
    const lengthBytes = Math.min(chunkBytes, sizeBytes - offset)
    const isWithin = offset + lengthBytes <= deviceStart + deviceBytes[device]!
    head.writeUInt16LE(isWithin ? device + 1 : 0, map + chunk * indexBytes + 2)
    head.writeUInt32LE(isWithin ? (offset - deviceStart) / blockBytes : nextPiece, map + chunk * indexBytes + 4)
    if (isWithin) continue
    pieces.push({ offset, lengthBytes, at: nextPiece * blockBytes })
    nextPiece += chunkBytes / blockBytes
  }
  const block = head.subarray(0, blockBytes)
  writeSuperblock(block, { totalBlocks: nextPiece, inodes: 2, rootNode: root / slotBytes, chunked: true, uuid })
  setDeviceTable(block, { devices: deviceBytes.length, tableOffset })
  return { head, pieces }
}

interface InodeFields {
  layout: keyof typeof layouts
  mode: number
  sizeBytes: number
  place: number
  links: number
  number: number
}

/** The extended form; owner and times are 0. */
function writeInode(out: Buffer, at: number, { layout, mode, sizeBytes, place, links, number }: InodeFields): void {
  out.writeUInt16LE(1 | (layouts[layout] << 1), at)
  out.writeUInt16LE(mode, at + 4)
  out.writeBigUInt64LE(BigInt(sizeBytes), at + 8)
  out.writeUInt32LE(place, at + 16)
  out.writeUInt32LE(number, at + 20)
  out.writeUInt32LE(links, at + 44)
}

function align(offset: number, to: number): number {
  return Math.ceil(offset / to) * to
}

/** The first place from `offset` on at which so many bytes do not cross into another block: an inline tail must not. */
function within1Block(offset: number, lengthBytes: number): number {
  return (offset % blockBytes) + lengthBytes > blockBytes ? align(offset, blockBytes) : offset
}
