import type { ByteString } from '../../protocol/layer-index.ts'
import { P2pfsError } from '../../protocol/errors.ts'

export const accessAcl: ByteString = 'system.posix_acl_access'
export const defaultAcl: ByteString = 'system.posix_acl_default'

/** Tags and layout of include/uapi/linux/posix_acl.h and posix_acl_xattr.h: a version, then 8 bytes for each entry. */
const tags = { user: 0x01, namedUser: 0x02, group: 0x04, namedGroup: 0x08, mask: 0x10, other: 0x20 } as const
const version = 2
const headerBytes = 4
const entryBytes = 8

interface AclEntry {
  tag: number
  permissions: number
}

/**
 * What setxattr makes of an ACL (fs/posix_acl.c).
 * @param value in the system call's form, not empty
 * @returns undefined for one that does nothing: of a version that the kernel does not know, or without entries
 * @throws invalid for one that the kernel refuses
 */
export function parseAcl(value: Uint8Array): readonly AclEntry[] | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  if (value.length < headerBytes) throw new P2pfsError('invalid', 'POSIX ACL is cut short')
  if (view.getUint32(0, true) !== version) return undefined
  if ((value.length - headerBytes) % entryBytes !== 0) throw new P2pfsError('invalid', 'POSIX ACL is cut short')
  const entries: AclEntry[] = []
  for (let at = headerBytes; at < value.length; at += entryBytes)
    entries.push({ tag: view.getUint16(at, true), permissions: view.getUint16(at + 2, true) })
  if (entries.length === 0) return undefined
  check(entries)
  return entries
}

/**
 * A mode under an ACL: the permissions of user, mask or else group, and other come from it (posix_acl_update_mode).
 * @returns `equivalent` if the mode says all that the ACL does, which the kernel then does not keep
 */
export function applyAcl(mode: number, entries: readonly AclEntry[]): { mode: number; equivalent: boolean } {
  const permissions = (tag: number): number | undefined => entries.find((entry) => entry.tag === tag)?.permissions
  const mask = permissions(tags.mask)
  const group = mask ?? permissions(tags.group)!
  return {
    mode: (mode & ~0o777) | (permissions(tags.user)! << 6) | (group << 3) | permissions(tags.other)!,
    equivalent: mask === undefined && entries.every(({ tag }) => tag !== tags.namedUser && tag !== tags.namedGroup),
  }
}

/** posix_acl_valid: the tags in order, named ones as often as they like, a mask where there are such. */
function check(entries: readonly AclEntry[]): void {
  const marks: Record<number, string> = {
    [tags.user]: 'u',
    [tags.namedUser]: 'U',
    [tags.group]: 'g',
    [tags.namedGroup]: 'G',
    [tags.mask]: 'm',
    [tags.other]: 'o',
  }
  const order = entries.map(({ tag }) => marks[tag] ?? '?').join('')
  if (!/^(ugo|uU*gG*mo)$/.test(order) || entries.some(({ permissions }) => permissions > 7))
    throw new P2pfsError('invalid', 'POSIX ACL that the kernel would refuse')
}
