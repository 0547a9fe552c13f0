import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { checkTar } from '../../../node/images/not-a-tar.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A file of 8 KiB with these bytes at an offset. */
function fileWith(bytes: string, offset = 0, others = '.'): Buffer {
  const file = Buffer.alloc(8192, others)
  file.write(bytes, offset, 'latin1')
  return file
}

const content = fileWith('\x53\xef', 1080 - 512)
const tar = Buffer.from(writeTar([{ path: 'data', type: 'file', content }]))

for (const [what, bytes] of [
  ['a tar', tar],
  ['an empty tar', Buffer.alloc(1024)],
  ['what is compressed', gzipSync('no tar')],
  ['an empty file', Buffer.alloc(0)],
] as const)
  test(`${what} is left to whoever reads it`, async (t) => {
    const path = join(temporaryDirectory(t), 'file')
    writeFileSync(path, bytes)
    await checkTar(path)
  })

for (const [bytes, message] of [
  [
    Buffer.from('#!/bin/sh\n'),
    /is no tar; import takes a tar, a directory, an OCI layout as oci:DIR:TAG, or a disk image/,
  ],
  [fileWith('text'), /is no tar; import takes/],
  [fileWith('\x53\xef', 1080), /looks like an ext4 image; for a disk image use --raw/],
  [fileWith('\x53\xef', 1080, '\0'), /looks like an ext4 image/],
  [fileWith('QFI\xfb'), /looks like a qcow2 image; convert it with qemu-img/],
  [fileWith('EFI PART', 512), /looks like a disk image with partitions; .*--raw/],
  [fileWith('\xfd7zXZ\0'), /compressed with xz; unpack it/],
  [fileWith('PK\x03\x04'), /zip archive; unpack it first/],
  [Buffer.concat([fileWith('x').subarray(0, 100), tar.subarray(100)]), /is no tar/],
] as const)
  test(`a file is said to be no tar, and what to do about it: ${message.source}`, async (t) => {
    const path = join(temporaryDirectory(t), 'file')
    writeFileSync(path, bytes)
    await assert.rejects(checkTar(path), { code: 'invalid', message })
  })
