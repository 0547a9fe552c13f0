import { P2pfsError } from '../../../protocol/errors.ts'
import type { ByteString } from '../../../protocol/layer-entry.ts'
import { maxXattrBytes, xattrHeaderBytes } from './format.ts'

/** Name prefixes and their numbers, the longest first. POSIX ACLs are stored in the form of the system call. */
const prefixes: readonly (readonly [string, number])[] = [
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['trusted.', 4],
  ['security.', 6],
  ['user.', 1],
]

/**
 * Extended attributes as they stand behind their inode, header first; empty where there are none.
 * @throws unsupported for a namespace that EROFS does not have, or for more attributes than an inode can have
 */
export function encodeXattrs(xattrs: readonly { name: ByteString; value: Uint8Array }[]): Buffer {
  if (xattrs.length === 0) return Buffer.alloc(0)
  const out = Buffer.concat([Buffer.alloc(xattrHeaderBytes), ...xattrs.map((xattr) => encodeEntry(xattr))])
  if (out.length > maxXattrBytes) {
    throw new P2pfsError(
      'unsupported',
      `extended attributes take ${out.length} bytes; EROFS has room for ${maxXattrBytes}`,
    )
  }
  return out
}

function encodeEntry({ name, value }: { name: ByteString; value: Uint8Array }): Buffer {
  const found = prefixes.find(([prefix]) => name.startsWith(prefix))
  if (found === undefined)
    throw new P2pfsError('unsupported', `EROFS cannot store the extended attribute ${JSON.stringify(name)}`)
  const [prefix, index] = found
  const rest = name.slice(prefix.length)
  if (rest.length > 0xff || value.length > 0xffff)
    throw new P2pfsError('unsupported', `extended attribute ${JSON.stringify(name)} is too long`)
  const out = Buffer.alloc((4 + rest.length + value.length + 3) & ~3)
  out[0] = rest.length
  out[1] = index
  out.writeUInt16LE(value.length, 2)
  out.write(rest, 4, 'latin1')
  out.set(value, 4 + rest.length)
  return out
}
