/**
 * The part of the kernel's FUSE protocol that a read-only tree of image files needs: linux/fuse.h, version 7.
 * Numbers are in the machine's byte order, which is little-endian wherever this runs.
 */

export const opcodes = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  open: 14,
  read: 15,
  statfs: 17,
  release: 18,
  getxattr: 22,
  listxattr: 23,
  flush: 25,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  access: 34,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
} as const

export const errnos = {
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  EACCES: 13,
  ENOTDIR: 20,
  EISDIR: 21,
  EROFS: 30,
  ENOSYS: 38,
  ENODATA: 61,
} as const

export const rootNodeId = 1
/** The largest read (bytes): 256 pages, the most that the kernel allows without a sysctl. */
export const maxReadBytes = 256 * 4096
/** Length of struct fuse_in_header (bytes). */
export const inHeaderBytes = 40
/** Length of struct fuse_out_header (bytes). */
export const outHeaderBytes = 16

const initFlags = { asyncRead: 1 << 0, parallelDirops: 1 << 18, maxPages: 1 << 22, initExt: 1 << 30 }
/** FUSE_HAS_RESEND, bit 39, as a bit of flags2. */
const hasResend = 1 << 7
/**
 * The kernel keeps the pages that it has of a file when it is opened again, which it drops otherwise; and sends no FLUSH
 * when it is closed.
 */
const openFlags = { keepCache: 1 << 1, noFlush: 1 << 5 }
/** R_OK of access(2). */
const readAccess = 4
const notifyInvalInode = 2
const notifyInvalEntry = 3
/**
 * FUSE_NOTIFY_RESEND, Linux 6.9: the kernel hands the requests that were taken and not answered to whoever reads next.
 */
const notifyResend = 7
/** How long the kernel may keep entries and attributes without asking (s): nothing here ever changes. */
const validSeconds = 86_400

export interface FuseRequest {
  opcode: number
  /** The kernel's number of the request. */
  unique: bigint
  nodeId: number
  /**
   * The user on whose behalf the kernel asks, as permissions of files are checked (fsuid). It is that of the user
   * namespace in which the filesystem was mounted, so root of a container's own user namespace is not 0; 2^32-1 for a
   * user who has no number there.
   */
  uid: number
  /** Without the header. */
  body: Buffer
}

/** One request as the kernel hands it out: struct fuse_in_header, and a body that refers to `bytes`. */
export function parseRequest(bytes: Buffer): FuseRequest {
  return {
    opcode: bytes.readUInt32LE(4),
    unique: bytes.readBigUInt64LE(8),
    nodeId: Number(bytes.readBigUInt64LE(16)),
    uid: bytes.readUInt32LE(24),
    body: bytes.subarray(inHeaderBytes),
  }
}

/** The bytes that are read: struct fuse_read_in. */
export function parseRead(body: Buffer): { offset: number; size: number } {
  return { offset: Number(body.readBigUInt64LE(8)), size: body.readUInt32LE(16) }
}

/** Whether access(2) asks for no more than to read: struct fuse_access_in. */
export function asksToRead(body: Buffer): boolean {
  return (body.readUInt32LE(0) & ~readAccess) === 0
}

/** Lookups that the kernel gives back: struct fuse_forget_in, struct fuse_batch_forget_in. */
export function parseForgets({ opcode, nodeId, body }: FuseRequest): { nodeId: number; lookups: number }[] {
  if (opcode === opcodes.forget) return [{ nodeId, lookups: Number(body.readBigUInt64LE(0)) }]
  return Array.from({ length: body.readUInt32LE(0) }, (_, i) => ({
    nodeId: Number(body.readBigUInt64LE(8 + i * 16)),
    lookups: Number(body.readBigUInt64LE(16 + i * 16)),
  }))
}

export interface Attributes {
  nodeId: number
  directory: boolean
  sizeBytes: number
}

/** A reply: an error number, or 0 and a body. */
export function encodeReply(unique: bigint, error: number, body?: Uint8Array): Buffer {
  const reply = Buffer.alloc(outHeaderBytes + (body?.length ?? 0))
  writeOutHeader(reply, reply.length, error, unique)
  if (body !== undefined) reply.set(body, outHeaderBytes)
  return reply
}

export function writeOutHeader(target: Buffer, lengthBytes: number, error: number, unique: bigint): void {
  target.writeUInt32LE(lengthBytes, 0)
  target.writeInt32LE(-error, 4)
  target.writeBigUInt64LE(unique, 8)
}

/** struct fuse_open_out of a file that the kernel may keep pages of. */
export function encodeOpen(): Buffer {
  const out = Buffer.alloc(16)
  out.writeUInt32LE(openFlags.keepCache | openFlags.noFlush, 8)
  return out
}

/** struct fuse_init_out, for the kernel's offer in the body of its request. */
export function encodeInit(request: Buffer): Buffer {
  const minor = Math.min(request.readUInt32LE(4), 38)
  const offered = request.readUInt32LE(12)
  const out = Buffer.alloc(64)
  out.writeUInt32LE(7, 0)
  out.writeUInt32LE(minor, 4)
  out.writeUInt32LE(maxReadBytes, 8)
  const wanted = initFlags.asyncRead | initFlags.parallelDirops | initFlags.maxPages | initFlags.initExt
  out.writeUInt32LE((offered & wanted) >>> 0, 12)
  // Read-ahead and asynchronous direct reads of many VMs at once; the kernel's own default is 12.
  out.writeUInt16LE(256, 16)
  out.writeUInt16LE(192, 18)
  out.writeUInt32LE(4096, 20)
  out.writeUInt32LE(1, 24)
  out.writeUInt16LE(maxReadBytes / 4096, 28)
  out.writeUInt32LE((offered & initFlags.initExt) === 0 ? 0 : hasResend, 32)
  return out
}

/** struct fuse_entry_out. */
export function encodeEntry(attributes: Attributes): Buffer {
  const out = Buffer.alloc(128)
  out.writeBigUInt64LE(BigInt(attributes.nodeId), 0)
  out.writeBigUInt64LE(BigInt(validSeconds), 16)
  out.writeBigUInt64LE(BigInt(validSeconds), 24)
  writeAttributes(out, 40, attributes)
  return out
}

/** struct fuse_attr_out. */
export function encodeAttributes(attributes: Attributes): Buffer {
  const out = Buffer.alloc(104)
  out.writeBigUInt64LE(BigInt(validSeconds), 0)
  writeAttributes(out, 16, attributes)
  return out
}

function writeAttributes(out: Buffer, start: number, { nodeId, directory, sizeBytes }: Attributes): void {
  out.writeBigUInt64LE(BigInt(nodeId), start)
  out.writeBigUInt64LE(BigInt(sizeBytes), start + 8)
  out.writeBigUInt64LE(BigInt(Math.ceil(sizeBytes / 512)), start + 16)
  // Root's alone, as far as one mode can say it: owners of mounts are let in when they open the file.
  out.writeUInt32LE(directory ? 0o40555 : 0o100400, start + 60)
  out.writeUInt32LE(directory ? 2 : 1, start + 64)
  out.writeUInt32LE(4096, start + 80)
}

/** struct fuse_statfs_out: a full, read-only filesystem. */
export function encodeStatfs(): Buffer {
  const out = Buffer.alloc(80)
  out.writeUInt32LE(4096, 40)
  out.writeUInt32LE(255, 44)
  out.writeUInt32LE(4096, 48)
  return out
}

/** struct fuse_dirent of the entries from position `offset` on, as many as fit into `maxBytes`. */
export function encodeDirectory(
  entries: readonly { nodeId: number; directory: boolean; name: string }[],
  offset: number,
  maxBytes: number,
): Buffer {
  const records: Buffer[] = []
  let length = 0
  for (const [i, { nodeId, directory, name }] of entries.entries()) {
    if (i < offset) continue
    const record = Buffer.alloc((24 + name.length + 7) & ~7)
    if (length + record.length > maxBytes) break
    record.writeBigUInt64LE(BigInt(nodeId), 0)
    record.writeBigUInt64LE(BigInt(i + 1), 8)
    record.writeUInt32LE(name.length, 16)
    record.writeUInt32LE(directory ? 4 : 8, 20)
    record.write(name, 24, 'latin1')
    records.push(record)
    length += record.length
  }
  return Buffer.concat(records)
}

/** Asks the kernel to hand out again what an earlier daemon took and did not answer. */
export function encodeNotifyResend(): Buffer {
  const out = Buffer.alloc(outHeaderBytes)
  out.writeUInt32LE(out.length, 0)
  out.writeInt32LE(notifyResend, 4)
  return out
}

/**
 * Makes the kernel ask anew for the attributes of a file or directory. It answers ENOENT where it has none with this id,
 * which is what this is for: fuse_reverse_inval_inode() of fs/fuse/inode.c.
 */
export function encodeNotifyInvalInode(nodeId: number): Buffer {
  const out = Buffer.alloc(outHeaderBytes + 24)
  out.writeUInt32LE(out.length, 0)
  out.writeInt32LE(notifyInvalInode, 4)
  out.writeBigUInt64LE(BigInt(nodeId), outHeaderBytes)
  // An offset below zero: its pages stay.
  out.writeBigInt64LE(-1n, outHeaderBytes + 8)
  return out
}

/** Makes the kernel forget `name` in a directory; who has it in use keeps it. */
export function encodeNotifyInvalEntry(parent: number, name: string): Buffer {
  const out = Buffer.alloc(outHeaderBytes + 16 + name.length + 1)
  out.writeUInt32LE(out.length, 0)
  out.writeInt32LE(notifyInvalEntry, 4)
  out.writeBigUInt64LE(BigInt(parent), outHeaderBytes)
  out.writeUInt32LE(name.length, outHeaderBytes + 8)
  out.write(name, outHeaderBytes + 16, 'latin1')
  return out
}
