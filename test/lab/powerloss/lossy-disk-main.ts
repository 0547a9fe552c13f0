// Serves one file, a disk, on a FUSE mount until it is unmounted. argv: the image that the disk begins with, the directory
// of the mount, where the image goes that a power loss leaves, the bytes of a sector, and a seed.
//
// The disk has a cache of its own, as disks do: what is written is there for readers at once, and survives a power loss
// for certain when a sync came after it. To look up `power-loss` in the directory is to cut the power: of what was
// written since the last sync, a random part is in the image that is left, in pieces of a sector to 4 KiB. The disk
// goes on as if nothing had happened; what is done to it from then on is not in that image.
import { spawnSync } from 'node:child_process'
import { openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs'
import {
  encodeReply,
  errnos,
  inHeaderBytes,
  opcodes,
  outHeaderBytes,
  rootNodeId,
} from '../../../node/mount/fuse/protocol.ts'
import { createRandom } from '../../support/random.ts'

const [, , image = '', directory = '', left = '', sectorBytes = '512', seed = '0'] = process.argv
const moreOpcodes = { setattr: 4, write: 16, fsync: 20 } as const
const diskNodeId = 2
const maxWriteBytes = 1024 * 1024
/** FUSE_MAX_PAGES and FUSE_BIG_WRITES of fuse_init_out; FOPEN_DIRECT_IO of fuse_open_out. */
const [maxPages, bigWrites, directIo] = [1 << 22, 1 << 5, 1 << 0]

const random = createRandom(Number(seed))
/** The bytes that a reader gets, and those that are on the disk for certain. */
const seen = readFileSync(image)
const certain = Buffer.from(seen)
let unsynced: { offset: number; bytes: Buffer }[] = []

const fuse = openSync('/dev/fuse', 'r+')
const mounted = spawnSync(
  'mount',
  ['-i', '-t', 'fuse.lossy', '-o', 'fd=3,rootmode=40000,user_id=0,group_id=0', 'lossy', directory],
  { stdio: ['ignore', 'inherit', 'inherit', fuse] },
)
if (mounted.status !== 0) process.exit(1)
process.stdout.write('mounted\n')

const request = Buffer.alloc(maxWriteBytes + 4096)
const answer = Buffer.alloc(outHeaderBytes + maxWriteBytes)
for (;;) {
  let lengthBytes: number
  try {
    lengthBytes = readSync(fuse, request, 0, request.length, null)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EINTR' || code === 'ENOENT') continue
    // It is unmounted.
    break
  }
  const opcode = request.readUInt32LE(4)
  const unique = request.readBigUInt64LE(8)
  const nodeId = Number(request.readBigUInt64LE(16))
  const body = request.subarray(inHeaderBytes, lengthBytes)
  const reply = serve(opcode, nodeId, body, unique)
  if (reply === undefined) continue
  try {
    writeSync(fuse, reply)
  } catch {
    // The request was interrupted.
  }
}

function serve(opcode: number, nodeId: number, body: Buffer, unique: bigint): Uint8Array | undefined {
  switch (opcode) {
    case opcodes.init:
      return encodeReply(unique, 0, initialization(body))
    case opcodes.lookup: {
      const name = body.subarray(0, body.indexOf(0)).toString('latin1')
      if (name === 'power-loss') losePower()
      if (name !== 'disk') return encodeReply(unique, errnos.ENOENT)
      const entry = Buffer.alloc(128)
      entry.writeBigUInt64LE(BigInt(diskNodeId), 0)
      entry.writeBigUInt64LE(3_600n, 24)
      writeAttributes(entry, 40, diskNodeId)
      return encodeReply(unique, 0, entry)
    }
    case opcodes.getattr:
    case moreOpcodes.setattr: {
      const attributes = Buffer.alloc(104)
      writeAttributes(attributes, 16, nodeId)
      return encodeReply(unique, 0, attributes)
    }
    case opcodes.open: {
      const opened = Buffer.alloc(16)
      opened.writeUInt32LE(directIo, 8)
      return encodeReply(unique, 0, opened)
    }
    case opcodes.opendir:
      return encodeReply(unique, 0, Buffer.alloc(16))
    case opcodes.read: {
      const offset = Number(body.readBigUInt64LE(8))
      const bytes = seen.subarray(offset, offset + body.readUInt32LE(16))
      const length = outHeaderBytes + bytes.length
      answer.writeUInt32LE(length, 0)
      answer.writeInt32LE(0, 4)
      answer.writeBigUInt64LE(unique, 8)
      answer.set(bytes, outHeaderBytes)
      return answer.subarray(0, length)
    }
    case moreOpcodes.write: {
      const offset = Number(body.readBigUInt64LE(8))
      const bytes = Buffer.from(body.subarray(40, 40 + body.readUInt32LE(16)))
      seen.set(bytes, offset)
      unsynced.push({ offset, bytes })
      const written = Buffer.alloc(8)
      written.writeUInt32LE(bytes.length, 0)
      return encodeReply(unique, 0, written)
    }
    case moreOpcodes.fsync:
      for (const { offset, bytes } of unsynced) certain.set(bytes, offset)
      unsynced = []
      return encodeReply(unique, 0)
    case opcodes.release:
    case opcodes.releasedir:
    case opcodes.flush:
      return encodeReply(unique, 0)
    case opcodes.statfs:
      return encodeReply(unique, 0, Buffer.alloc(80))
    case opcodes.forget:
    case opcodes.batchForget:
    case opcodes.interrupt:
      return undefined
    default:
      return encodeReply(unique, errnos.ENOSYS)
  }
}

/** struct fuse_init_out */
function initialization(offer: Buffer): Buffer {
  const out = Buffer.alloc(64)
  out.writeUInt32LE(7, 0)
  out.writeUInt32LE(Math.min(offer.readUInt32LE(4), 38), 4)
  out.writeUInt32LE(maxWriteBytes, 8)
  out.writeUInt32LE((offer.readUInt32LE(12) & (maxPages | bigWrites)) >>> 0, 12)
  out.writeUInt16LE(64, 16)
  out.writeUInt16LE(48, 18)
  out.writeUInt32LE(maxWriteBytes, 20)
  out.writeUInt32LE(1, 24)
  out.writeUInt16LE(maxWriteBytes / 4096, 28)
  return out
}

/** struct fuse_attr */
function writeAttributes(out: Buffer, start: number, nodeId: number): void {
  const isDirectory = nodeId === rootNodeId
  out.writeBigUInt64LE(BigInt(nodeId), start)
  out.writeBigUInt64LE(isDirectory ? 0n : BigInt(seen.length), start + 8)
  out.writeBigUInt64LE(isDirectory ? 0n : BigInt(seen.length / 512), start + 16)
  out.writeUInt32LE(isDirectory ? 0o40700 : 0o100600, start + 60)
  out.writeUInt32LE(1, start + 64)
  out.writeUInt32LE(4096, start + 80)
}

/** How much of what was not synced is there afterwards: all of it, in any mixture, or none. */
function losePower(): void {
  const share = [0, 0.1, 0.5, 0.9, 1][random.below(5)]!
  const pieceBytes = Math.max(512 * 2 ** random.below(4), Number(sectorBytes))
  let [keptBytes, lostBytes] = [0, 0]
  for (const { offset, bytes } of unsynced)
    for (let at = 0; at < bytes.length;) {
      // A piece is a whole one of the disk, wherever the write began.
      const end = Math.min(bytes.length, at + pieceBytes - ((offset + at) % pieceBytes))
      if (random.next() < share) {
        certain.set(bytes.subarray(at, end), offset + at)
        keptBytes += end - at
      } else lostBytes += end - at
      at = end
    }
  writeFileSync(left, certain)
  process.stdout.write(`${JSON.stringify({ writes: unsynced.length, keptBytes, lostBytes })}\n`)
}
