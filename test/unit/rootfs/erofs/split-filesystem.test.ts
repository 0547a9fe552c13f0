import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32c } from '../../../../node/rootfs/erofs/crc32c.ts'
import { splitMetadata } from '../../../../node/rootfs/erofs/split-filesystem.ts'
import { writeSuperblock } from '../../../../node/rootfs/erofs/superblock.ts'
import { isP2pfsError } from '../../../../protocol/errors.ts'

const blockBytes = 4096
const slotBytes = 128

function firstBlock(): Buffer {
  const block = Buffer.alloc(blockBytes)
  block.fill(0xab, 1024 + 128)
  writeSuperblock(block, { totalBlocks: 9, inodes: 3, rootNode: 36, chunked: true, uuid: Buffer.alloc(16, 1) })
  return block
}

/** The blocks of each device and the block at which it begins. */
function devicesOf(table: Buffer, count: number): [blocks: number, first: number][] {
  return Array.from({ length: count }, (_, i) => [
    table.readUInt32LE(i * slotBytes + 64),
    table.readUInt32LE(i * slotBytes + 68),
  ])
}

test('layers become devices where their blocks were, but for those without data; the rest of the block stays', () => {
  const original = firstBlock()
  const { firstBlock: block, end } = splitMetadata(original, 2 * blockBytes, [3 * blockBytes, 0, 5 * blockBytes])
  assert.equal(end.length, 0)
  assert.deepEqual([block.readUInt16LE(1024 + 86), block.readUInt16LE(1024 + 88)], [2, 0])
  assert.deepEqual(devicesOf(block, 2), [
    [3, 2],
    [5, 5],
  ])
  assert.equal(block.readUInt32LE(1024 + 80), 0x4 | 0x8)
  const checked = Buffer.from(block.subarray(1024))
  checked.writeUInt32LE(0, 4)
  assert.equal(block.readUInt32LE(1024 + 4), crc32c(checked, 0xffffffff))
  assert.deepEqual(block.subarray(1024 + 90), original.subarray(1024 + 90))
  assert.deepEqual(original, firstBlock(), 'the original is not changed')
})

test('the table of more than eight devices stands behind the metadata', () => {
  const { firstBlock: block, end } = splitMetadata(firstBlock(), 4 * blockBytes, Array<number>(9).fill(blockBytes))
  assert.equal(block.readUInt16LE(1024 + 88) * slotBytes, 4 * blockBytes)
  assert.deepEqual(
    devicesOf(end, 9),
    Array.from({ length: 9 }, (_, i) => [1, 4 + i]),
  )
  assert.ok(block.subarray(0, 1024).every((byte) => byte === 0))
})

test('more than eight devices behind 8 MiB of metadata are refused, as their table has no place', () => {
  const layers = Array<number>(9).fill(blockBytes)
  splitMetadata(firstBlock(), 8 * 2 ** 20 - blockBytes, layers)
  assert.throws(
    () => splitMetadata(firstBlock(), 8 * 2 ** 20, layers),
    (error) => isP2pfsError(error, 'unsupported'),
  )
  splitMetadata(firstBlock(), 80 * 2 ** 20, layers.slice(1))
})
