import { encodeDevices, setDeviceTable, type ErofsDevice } from './device-table.ts'
import { blockBytes, deviceSlotBytes, superblockOffset } from './format.ts'

/** Slots that fit before the superblock, where nothing else is. */
const slotsBefore = superblockOffset / deviceSlotBytes

/** The parts of a metadata segment that are not as they are in an image of one piece. */
export interface SplitMetadata {
  /** Its first block. */
  firstBlock: Buffer
  /** The bytes behind its last block. */
  end: Buffer
}

/**
 * Makes of an EROFS image whose metadata and data segments follow each other one whose data segments are devices: the
 * kernel finds a file's blocks by their place in the whole.
 * @param firstBlock of the metadata segment; not changed
 * @param metadataBytes length of the metadata segment
 * @param layerBytes length of each data segment; an empty one gets no device
 * @throws unsupported for more than 8 devices behind more than 8 MiB of metadata: there is no room for their table
 */
export function splitMetadata(
  firstBlock: Uint8Array,
  metadataBytes: number,
  layerBytes: readonly number[],
): SplitMetadata {
  const devices: ErofsDevice[] = []
  let next = metadataBytes / blockBytes
  for (const bytes of layerBytes) {
    const blocks = bytes / blockBytes
    if (blocks > 0) devices.push({ blocks, firstBlock: next })
    next += blocks
  }
  const block = Buffer.from(firstBlock)
  const table = encodeDevices(devices)
  const isBefore = devices.length <= slotsBefore
  if (isBefore) table.copy(block)
  setDeviceTable(block, { devices: devices.length, tableOffset: isBefore ? 0 : metadataBytes })
  return { firstBlock: block, end: isBefore ? Buffer.alloc(0) : table }
}
