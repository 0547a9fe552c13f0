import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32c } from '../../../../node/rootfs/erofs/crc32c.ts'
import { planDriveFilesystem } from '../../../../node/rootfs/erofs/drive-filesystem.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import { createRandom } from '../../../support/random.ts'

const blockBytes = 4096
const uuid = Buffer.alloc(16, 7)

/** The file as the kernel puts it together from the map in the filesystem. */
function readFile(devices: readonly Buffer[], { head, pieces }: ReturnType<typeof planDriveFilesystem>): Buffer {
  const contents = Buffer.concat(devices)
  const own = Buffer.concat([head, Buffer.alloc(pieces.reduce((sum, { lengthBytes }) => sum + lengthBytes * 2, 0))])
  for (const { offset, lengthBytes, at } of pieces) contents.copy(own, at, offset, offset + lengthBytes)
  const root = head.readUInt16LE(1024 + 14) * 32
  // The third entry of the directory, whose names follow the entries.
  const file = Number(head.readBigUInt64LE(root + 64 + 2 * 12)) * 32
  assert.equal(
    head.toString('latin1', root + 64 + head.readUInt16LE(root + 64 + 2 * 12 + 8)).slice(0, 10),
    'rootfs.img',
  )
  const sizeBytes = Number(head.readBigUInt64LE(file + 8))
  const chunkBytes = blockBytes * 2 ** (head.readUInt32LE(file + 16) & 0x1f)
  const out: Buffer[] = []
  for (let start = 0; start < sizeBytes; start += chunkBytes) {
    const entry = file + 64 + (start / chunkBytes) * 8
    const source = [own, ...devices][head.readUInt16LE(entry + 2)]!
    const from = head.readUInt32LE(entry + 4) * blockBytes
    const length = Math.min(chunkBytes, sizeBytes - start)
    assert.ok(from + length <= source.length, 'within the device')
    out.push(source.subarray(from, from + length))
  }
  return Buffer.concat(out)
}

test("a drive's file is its devices, one after the other, wherever they end", () => {
  const random = createRandom(3)
  for (let round = 0; round < 20; round++) {
    const devices = Array.from({ length: 1 + random.below(130) }, () =>
      random.bytes((1 + random.below(200)) * blockBytes),
    )
    const plan = planDriveFilesystem(
      devices.map(({ length }) => length),
      uuid,
    )
    assert.ok(readFile(devices, plan).equals(Buffer.concat(devices)), `round ${round}`)
    assert.ok(plan.pieces.length < devices.length)
  }
})

test('its superblock counts the devices, says where they are, and has the checksum of its block', () => {
  const { head } = planDriveFilesystem([2 * blockBytes, 3 * blockBytes], uuid)
  const block = Buffer.from(head.subarray(1024, blockBytes))
  assert.equal(block.readUInt32LE(80), 0x4 | 0x8)
  assert.deepEqual([block.readUInt16LE(86), block.readUInt16LE(88) * 128], [2, 1152])
  assert.deepEqual([head.readUInt32LE(1152 + 64), head.readUInt32LE(1152 + 128 + 64)], [2, 3])
  const checksum = block.readUInt32LE(4)
  block.writeUInt32LE(0, 4)
  assert.equal(checksum, crc32c(block, 0xffffffff))
})

test('the bytes of the filesystem stay what the kernel has been seen to mount', () => {
  const { head, pieces } = planDriveFilesystem([100 * blockBytes, 27 * blockBytes, 300 * blockBytes], uuid)
  assert.equal(digestOf(head), 'sha256:de95a39c84699313253580f478983a5c232e5b7e6730aed99d8a67a6d767b147')
  assert.deepEqual(pieces, [{ offset: 262_144, lengthBytes: 262_144, at: 4096 }])
})

test('a file of terabytes has a map of a few megabytes', () => {
  const { head, pieces } = planDriveFilesystem([5 * blockBytes, 2 ** 42], uuid)
  assert.ok(head.length <= 9 * 2 ** 20, `${head.length}`)
  assert.equal(pieces.length, 1)
})
