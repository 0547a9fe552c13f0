import { P2pfsError } from '../../protocol/errors.ts'
import type { ByteString, LayerEntry } from '../../protocol/layer-entry.ts'
import { accessAcl, applyAcl, defaultAcl, parseAcl } from './posix-acl.ts'
import type { RootfsInode } from './tree/rootfs-inode.ts'

/** XATTR_NAME_MAX of include/uapi/linux/limits.h, bytes. */
const maxNameBytes = 255

/**
 * The extended attributes and mode of an entry as the kernel has them after an unpacker has set them as root. The
 * unpacker is umoci; the list notes where others differ. Not kept are
 * - empty values, which unset an attribute in PAX;
 * - `security.selinux`, which belongs to the host (as umoci);
 * - `trusted.overlay.*`, which overlayfs would take for its own bookkeeping (umoci keeps those that are younger than
 *   it);
 * - attributes that no filesystem takes: other `system.*`, and unknown namespaces (as umoci);
 * - `user.*` of anything but files and directories (as Docker; umoci and containerd refuse the image).
 *
 * @throws invalid for an attribute that the kernel, and therefore every unpacker, refuses
 */
export function keptXattrs({
  type,
  mode,
  xattrs,
}: Pick<LayerEntry, 'type' | 'mode' | 'xattrs'>): Pick<RootfsInode, 'mode' | 'xattrs'> {
  // Links have no mode of their own, and no ACL.
  if (type === 'symlink')
    return {
      mode: 0o777,
      xattrs: xattrs.filter(({ name, value }) => !name.startsWith('system.') && isKept(name, value, type)),
    }
  if (xattrs.length === 0) return { mode, xattrs }
  let keptMode = mode
  const kept = xattrs.filter(({ name, value }) => {
    if (!isKept(name, value, type)) return false
    if (name !== accessAcl && name !== defaultAcl) return true
    const acl = parseAcl(value)
    if (acl === undefined) return false
    if (name === defaultAcl) {
      if (type !== 'directory') throw new P2pfsError('invalid', 'default ACL, but not of a directory')
      return true
    }
    const applied = applyAcl(mode, acl)
    keptMode = applied.mode
    return !applied.equivalent
  })
  return { mode: keptMode, xattrs: kept }
}

/**
 * Mode and attributes that mkdir gives a directory in `parent`: its default ACL, also as access ACL (posix_acl_create).
 */
export function inheritedXattrs(parent: RootfsInode): Pick<RootfsInode, 'mode' | 'xattrs'> {
  const inherited = parent.xattrs.find(({ name }) => name === defaultAcl)
  const acl = inherited === undefined ? undefined : parseAcl(inherited.value)
  if (inherited === undefined || acl === undefined) return { mode: 0o755, xattrs: [] }
  const { mode, equivalent } = applyAcl(0, acl)
  return { mode, xattrs: equivalent ? [inherited] : [{ name: accessAcl, value: inherited.value }, inherited] }
}

function isKept(name: ByteString, value: Uint8Array, type: LayerEntry['type']): boolean {
  if (value.length === 0) return false
  const dot = name.indexOf('.')
  if (dot < 0 || dot === name.length - 1) return false
  switch (name.slice(0, dot)) {
    case 'user':
      if (type !== 'file' && type !== 'directory') return false
      break
    case 'trusted':
      if (name.startsWith('trusted.overlay.')) return false
      break
    case 'security':
      if (name === 'security.selinux') return false
      if (name === 'security.capability') checkCapability(value)
      break
    case 'system':
      return name === accessAcl || name === defaultAcl
    default:
      return false
  }
  if (name.length > maxNameBytes)
    throw new P2pfsError(
      'invalid',
      `extended attribute with a name of ${name.length} bytes; ${maxNameBytes} is the most`,
    )
  return true
}

/** Takes revisions 2 and 3 of struct vfs_cap_data, as cap_convert_nscap of security/commoncap.c does. */
function checkCapability(value: Uint8Array): void {
  const revision = value[3]
  if (!(value.length === 20 && revision === 2) && !(value.length === 24 && revision === 3))
    throw new P2pfsError('invalid', 'security.capability is malformed')
}
