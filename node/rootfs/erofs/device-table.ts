import { P2pfsError } from '../../../protocol/errors.ts'
import { crc32c } from './crc32c.ts'
import { blockBytes, deviceSlotBytes, incompatible, superblockOffset } from './format.ts'

/** A file that a filesystem has besides the one that it is mounted from. */
export interface ErofsDevice {
  blocks: number
  /** Block of the whole filesystem at which the file begins. */
  firstBlock: number
}

/** The last place of a table: the superblock counts slots in 16 bits. */
const maxSlot = 0xffff

/** struct erofs_deviceslot of each device, in order; device ids count from 1. */
export function encodeDevices(devices: readonly ErofsDevice[]): Buffer {
  const out = Buffer.alloc(devices.length * deviceSlotBytes)
  for (const [i, { blocks, firstBlock }] of devices.entries()) {
    out.writeUInt32LE(blocks, i * deviceSlotBytes + 64)
    out.writeUInt32LE(firstBlock, i * deviceSlotBytes + 68)
  }
  return out
}

/**
 * Puts a device table into the superblock, and the checksum of the block with that.
 * @param block the first block of the filesystem, complete otherwise
 * @param tableOffset a multiple of 128, in the file that the filesystem is mounted from
 * @throws unsupported where the table begins too far behind the superblock: at 8 MiB or later
 */
export function setDeviceTable(
  block: Buffer,
  { devices, tableOffset }: { devices: number; tableOffset: number },
): void {
  const slot = tableOffset / deviceSlotBytes
  if (slot > maxSlot)
    throw new P2pfsError('unsupported', `a device table of EROFS cannot begin at ${tableOffset} bytes`)
  const out = block.subarray(superblockOffset)
  out.writeUInt32LE((out.readUInt32LE(80) | incompatible.deviceTable) >>> 0, 80)
  out.writeUInt16LE(devices, 86)
  out.writeUInt16LE(slot, 88)
  out.writeUInt32LE(0, 4)
  out.writeUInt32LE(crc32c(block.subarray(superblockOffset, blockBytes), 0xffffffff), 4)
}
