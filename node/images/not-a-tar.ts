import { open } from 'node:fs/promises'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { parseHeader, recordBytes } from '../rootfs/tar/header.ts'

/** The begin of a file that is read to tell its kind (bytes): the superblocks of disk images come within it. */
const headBytes = 4096

const asDisk = 'for a disk image use --raw'
const asTar = 'unpack it first, and import the directory'
/** Files that people give in the place of a tar: the bytes at an offset, the kind of file, and what to do. */
const known: readonly [offset: number, bytes: string, what: string, advice: string][] = [
  [0, 'QFI\xfb', 'a qcow2 image', 'convert it with qemu-img convert -O raw, and import that with --raw'],
  [0, 'KDMV', 'a VMDK image', 'convert it with qemu-img convert -O raw, and import that with --raw'],
  [1080, '\x53\xef', 'an ext4 image', asDisk],
  [1024, '\xe2\xe1\xf5\xe0', 'an EROFS image', asDisk],
  [0, 'hsqs', 'a squashfs image', asDisk],
  [512, 'EFI PART', 'a disk image with partitions', asDisk],
  [510, '\x55\xaa', 'a disk image', asDisk],
  [0, '\xfd7zXZ\0', 'compressed with xz', 'unpack it with xz -d: gzip and zstd are read as they are'],
  [0, 'BZh', 'compressed with bzip2', 'unpack it with bunzip2: gzip and zstd are read as they are'],
  [0, 'PK\x03\x04', 'a zip archive', asTar],
  [0, '070701', 'a cpio archive', asTar],
  [0, '\x7fELF', 'a program', 'put it into a directory, and import that'],
]
/** Compressed with gzip or zstd: what is in it shows when it is read. */
const compressed = ['\x1f\x8b', '\x28\xb5\x2f\xfd']

/** Looks whether a file is a tar, as far as its beginning shows that. @throws invalid, with what it is, and what to do, where it is none */
export async function checkTar(path: string): Promise<void> {
  await using file = await open(path)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0)
  const head = buffer.subarray(0, bytesRead)
  const startsWith = (bytes: string, offset = 0): boolean =>
    head.toString('latin1', offset, offset + bytes.length) === bytes
  if (head.length === 0 || compressed.some((magic) => startsWith(magic))) return
  const begins = beginningOf(head)
  if (begins === 'entry') return
  const [, , what, advice] = known.find(([offset, bytes]) => startsWith(bytes, offset)) ?? []
  if (begins === 'zeros' && what === undefined) return
  const it = what === undefined ? `${path} is no tar` : `${path} is no tar: it looks like ${what}`
  throw new P2pfsError(
    'invalid',
    `${it}; ${advice ?? 'import takes a tar, a directory, an OCI layout as oci:DIR:TAG, or a disk image with --raw'}`,
    { path },
  )
}

/** A tar without entries begins with zeros; so does an ext4 image. */
function beginningOf(head: Buffer): 'entry' | 'zeros' | 'something else' {
  if (head.length < recordBytes) return 'something else'
  try {
    return parseHeader(head.subarray(0, recordBytes)) === undefined ? 'zeros' : 'entry'
  } catch (error) {
    if (isP2pfsError(error, 'invalid')) return 'something else'
    throw error
  }
}
