import type { ByteString } from '../../protocol/layer-entry.ts'
import { P2pfsError } from '../../protocol/errors.ts'

export const accessAcl: ByteString = 'system.posix_acl_access'
export const defaultAcl: ByteString = 'system.posix_acl_default'

/** Tags of include/uapi/linux/posix_acl.h; the layout of posix_acl_xattr.h is a version and 8 bytes for each entry. */
const tags = { user: 0x01, namedUser: 0x02, group: 0x04, namedGroup: 0x08, mask: 0x10, other: 0x20 } as const
const version = 2
const headerBytes = 4
const entryBytes = 8

interface AclEntry {
  tag: number
  permissions: number
}

/**
 * Reads an ACL as setxattr does (fs/posix_acl.c).
 * @param value in the system call's form, not empty
 * @returns undefined for an ACL without effect: it has no entries, or a version that the kernel does not know
 * @throws invalid for an ACL that the kernel refuses
 */
export function parseAcl(value: Uint8Array): readonly AclEntry[] | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  if (value.length < headerBytes) throw new P2pfsError('invalid', 'POSIX ACL is cut short')
  if (view.getUint32(0, true) !== version) return undefined
  if ((value.length - headerBytes) % entryBytes !== 0) throw new P2pfsError('invalid', 'POSIX ACL is cut short')
  const entries: AclEntry[] = []
  for (let offset = headerBytes; offset < value.length; offset += entryBytes)
    entries.push({ tag: view.getUint16(offset, true), permissions: view.getUint16(offset + 2, true) })
  if (entries.length === 0) return undefined
  check(entries)
  return entries
}

/**
 * Applies an ACL to a mode: it gives the permissions of user, of mask or else group, and of other
 * (posix_acl_update_mode).
 * @returns `equivalent` if the mode alone says the same: the kernel then drops the ACL
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

/** As posix_acl_valid: tags stand in order, named ones any number of times, and named ones need a mask. */
function check(entries: readonly AclEntry[]): void {
  const letters: Record<number, string> = {
    [tags.user]: 'u',
    [tags.namedUser]: 'U',
    [tags.group]: 'g',
    [tags.namedGroup]: 'G',
    [tags.mask]: 'm',
    [tags.other]: 'o',
  }
  const order = entries.map(({ tag }) => letters[tag] ?? '?').join('')
  if (!/^(ugo|uU*gG*mo)$/.test(order) || entries.some(({ permissions }) => permissions > 7))
    throw new P2pfsError('invalid', 'POSIX ACL that the kernel refuses')
}
