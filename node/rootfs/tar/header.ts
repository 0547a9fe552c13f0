import { P2pfsError } from '../../../protocol/errors.ts'
import type { ByteString } from '../../../protocol/layer-entry.ts'

export const recordBytes = 512

/** The fields of one 512-byte header as they stand: POSIX ustar, or GNU tar's variant of it. */
export interface TarHeader {
  name: ByteString
  mode: number
  uid: number
  gid: number
  sizeBytes: number
  mtimeSeconds: number
  type: string
  linkName: ByteString
  devMajor: number
  devMinor: number
}

/**
 * @returns undefined for a record of zeros, which ends the archive
 * @throws invalid where the checksum or a number is wrong
 */
export function parseHeader(record: Buffer): TarHeader | undefined {
  if (record[0] === 0 && record.every((byte) => byte === 0)) return undefined
  const name = text(record, 0, 100)
  checkSum(record, name)
  const magic = record.toString('latin1', 257, 265)
  // star has times in the last bytes of this field.
  const prefixBytes = record.toString('latin1', 508, 512) === 'tar\0' ? 131 : 155
  const prefix = magic.startsWith('ustar\0') ? text(record, 345, prefixBytes) : ''
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    mode: parseNumber(record, 100, 8, name) & 0o7777,
    uid: parseNumber(record, 108, 8, name),
    gid: parseNumber(record, 116, 8, name),
    sizeBytes: parseNumber(record, 124, 12, name),
    mtimeSeconds: parseNumber(record, 136, 12, name),
    type: String.fromCharCode(record[156]!),
    linkName: text(record, 157, 100),
    // Formats before ustar have no device fields.
    devMajor: magic.startsWith('ustar') ? parseNumber(record, 329, 8, name) : 0,
    devMinor: magic.startsWith('ustar') ? parseNumber(record, 337, 8, name) : 0,
  }
}

function text(record: Buffer, offset: number, length: number): ByteString {
  const end = record.indexOf(0, offset)
  return record.toString('latin1', offset, end < 0 || end > offset + length ? offset + length : end)
}

/** The checksum is the sum of all bytes, with blanks in its own place. Some old tars summed signed bytes. */
function checkSum(record: Buffer, name: ByteString): void {
  let unsigned = 0
  let signed = 0
  for (let i = 0; i < recordBytes; i++) {
    const byte = i >= 148 && i < 156 ? 0x20 : record[i]!
    unsigned += byte
    signed += (byte << 24) >> 24
  }
  const stored = parseNumber(record, 148, 8, name)
  if (stored !== unsigned && stored !== signed)
    throw new P2pfsError('invalid', 'tar: header checksum does not match: not a tar, or damaged', { entry: name })
}

/** Octal digits, or, where the highest bit of the first byte is set, a two's complement number (base 256). */
export function parseNumber(record: Buffer, offset: number, length: number, entry: ByteString): number {
  const first = record[offset]!
  if ((first & 0x80) !== 0) {
    let value = BigInt(first & 0x40 ? (first & 0xff) - 0x100 : first & 0x7f)
    for (let i = 1; i < length; i++) value = (value << 8n) | BigInt(record[offset + i]!)
    if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) {
      throw new P2pfsError('invalid', 'tar: a number in its header is too large', { entry })
    }
    return Number(value)
  }
  // Blanks or zeros may stand before and after; a zero ends the number.
  const [digits = ''] = record
    .toString('latin1', offset, offset + length)
    .replace(/^[ \0]+|[ \0]+$/g, '')
    .split('\0')
  if (digits === '') return 0
  if (!/^[0-7]+$/.test(digits))
    throw new P2pfsError(
      'invalid',
      `tar: not an octal number in a header: ${JSON.stringify(digits)}: not a tar, or damaged`,
      { entry },
    )
  return Number.parseInt(digits, 8)
}
