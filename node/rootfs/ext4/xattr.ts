import type { ByteString } from '../../../protocol/layer-entry.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { blockBytes, extraInodeBytes, inodeBytes } from './format.ts'

export interface Xattr {
  name: ByteString
  value: Uint8Array
}

const magic = 0xea020000
/** Room in the inode behind its extra fields and the magic number, bytes. */
const inInodeBytes = inodeBytes - 128 - extraInodeBytes - 4
const headerBytes = 32

/** Name prefixes and their numbers, the longest first. */
const prefixes: readonly (readonly [string, number])[] = [
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['user.', 1],
  ['trusted.', 4],
  ['security.', 6],
  ['system.', 7],
]

interface Packed {
  index: number
  name: Buffer
  value: Uint8Array
  /** Size of the entry and its value, each padded to 4 bytes. */
  sizeBytes: number
}

const padded = (length: number): number => (length + 3) & ~3

/**
 * Extended attributes as they stand in the inode (behind its extra fields, magic first) and in a block of their own;
 * undefined where there are none.
 * @throws unsupported for a namespace that ext4 does not have, or for more attributes than one block has room for
 */
export function encodeXattrs(xattrs: readonly Xattr[]): { inInode: Buffer | undefined; block: Buffer | undefined } {
  const all = xattrs.map((xattr) => pack(xattr)).sort(compare)
  const inside: Packed[] = []
  const outside: Packed[] = []
  let insideBytes = 4
  let outsideBytes = headerBytes + 4
  for (const xattr of all) {
    if (insideBytes + xattr.sizeBytes <= inInodeBytes) {
      inside.push(xattr)
      insideBytes += xattr.sizeBytes
    } else {
      outside.push(xattr)
      outsideBytes += xattr.sizeBytes
    }
  }
  if (outsideBytes > blockBytes) {
    throw new P2pfsError(
      'unsupported',
      `extended attributes take ${outsideBytes} bytes; ext4 has room for ${blockBytes}, erofs for more`,
    )
  }
  return {
    inInode: inside.length === 0 ? undefined : encodeInInode(inside),
    block: outside.length === 0 ? undefined : encodeBlock(outside),
  }
}

function pack({ name, value }: Xattr): Packed {
  const found = prefixes.find(([prefix]) => name.startsWith(prefix))
  if (found === undefined)
    throw new P2pfsError('unsupported', `ext4 cannot store the extended attribute ${JSON.stringify(name)}`)
  const [prefix, index] = found
  const rest = Buffer.from(name.slice(prefix.length), 'latin1')
  const stored = index === 2 || index === 3 ? encodeAcl(value) : value
  return { index, name: rest, value: stored, sizeBytes: 16 + padded(rest.length) + padded(stored.length) }
}

/** The order in which the kernel expects the entries of a block. */
function compare(a: Packed, b: Packed): number {
  return a.index - b.index || a.name.length - b.name.length || Buffer.compare(a.name, b.name)
}

function encodeInInode(xattrs: readonly Packed[]): Buffer {
  const out = Buffer.alloc(4 + inInodeBytes)
  out.writeUInt32LE(magic, 0)
  encodeEntries(out, 4, 4, xattrs)
  return out
}

function encodeBlock(xattrs: readonly Packed[]): Buffer {
  const out = Buffer.alloc(blockBytes)
  out.writeUInt32LE(magic, 0)
  out.writeUInt32LE(1, 4)
  out.writeUInt32LE(1, 8)
  const hashes = encodeEntries(out, headerBytes, 0, xattrs)
  out.writeUInt32LE(
    hashes.reduce((hash, entry) => ((hash << 16) ^ (hash >>> 16) ^ entry) >>> 0, 0),
    12,
  )
  return out
}

/**
 * Writes entries from `offset` on, and values from the end back; offsets of values count from `base`.
 * @returns hashes
 */
function encodeEntries(out: Buffer, offset: number, base: number, xattrs: readonly Packed[]): number[] {
  let end = out.length
  return xattrs.map(({ index, name, value }) => {
    end -= padded(value.length)
    out.set(value, end)
    const hash = entryHash(name, out.subarray(end, end + padded(value.length)))
    out[offset] = name.length
    out[offset + 1] = index
    out.writeUInt16LE(value.length === 0 ? 0 : end - base, offset + 2)
    out.writeUInt32LE(value.length, offset + 8)
    out.writeUInt32LE(hash, offset + 12)
    out.set(name, offset + 16)
    offset += 16 + padded(name.length)
    return hash
  })
}

/** ext4_xattr_hash_entry of fs/ext4/xattr.c. */
function entryHash(name: Uint8Array, paddedValue: Buffer): number {
  let hash = 0
  for (const byte of name) hash = (hash << 5) ^ (hash >>> 27) ^ byte
  for (let offset = 0; offset < paddedValue.length; offset += 4)
    hash = (hash << 16) ^ (hash >>> 16) ^ paddedValue.readUInt32LE(offset)
  return hash >>> 0
}

/**
 * Turns the system call's form of a POSIX ACL (version 2, 8 bytes an entry) into ext4's: version 1, with ids only for
 * named users and groups.
 */
function encodeAcl(value: Uint8Array): Buffer {
  const acl = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  if (acl.length < 4 || acl.readUInt32LE(0) !== 2 || acl.length % 8 !== 4) {
    throw new P2pfsError('invalid', 'not a POSIX ACL')
  }
  const parts: Buffer[] = [Buffer.from([1, 0, 0, 0])]
  for (let offset = 4; offset < acl.length; offset += 8) {
    const tag = acl.readUInt16LE(offset)
    const named = tag === 2 || tag === 8
    parts.push(acl.subarray(offset, offset + (named ? 8 : 4)))
  }
  return Buffer.concat(parts)
}
