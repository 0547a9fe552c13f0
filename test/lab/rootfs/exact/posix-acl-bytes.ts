/** Tags of include/uapi/linux/posix_acl.h. */
const tags = { user: 0x01, namedUser: 0x02, group: 0x04, namedGroup: 0x08, mask: 0x10, other: 0x20 } as const

export interface AclEntry {
  tag: keyof typeof tags
  permissions: number
  id?: number
}

/** A POSIX ACL in the form of the system calls (posix_acl_xattr.h), Latin-1. */
export function aclBytes(entries: readonly AclEntry[]): string {
  const out = Buffer.alloc(4 + entries.length * 8)
  out.writeUInt32LE(2, 0)
  for (const [i, { tag, permissions, id = 0xffffffff }] of entries.entries()) {
    out.writeUInt16LE(tags[tag], 4 + i * 8)
    out.writeUInt16LE(permissions, 6 + i * 8)
    out.writeUInt32LE(id, 8 + i * 8)
  }
  return out.toString('latin1')
}
