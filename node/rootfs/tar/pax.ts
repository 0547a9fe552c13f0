import { P2pfsError } from '../../../protocol/errors.ts'
import type { ByteString } from '../../../protocol/layer-entry.ts'

/** Records of a PAX extended header: keyword to value, both bytes. Later records win; an empty value unsets. */
export type PaxRecords = Map<ByteString, ByteString>

/**
 * Reads an extended header, `LENGTH KEYWORD=VALUE\n` over and over: pax(1), "pax Extended Header".
 * @param sparse gets the values of GNU.sparse.offset and .numbytes in order, which come many times each
 * @throws invalid
 */
export function parsePax(bytes: Buffer, into: PaxRecords, sparse: number[]): void {
  for (let offset = 0; offset < bytes.length;) {
    // Some writers pad with zeros.
    if (bytes[offset] === 0) break
    const blank = bytes.indexOf(0x20, offset)
    const length = Number(bytes.toString('latin1', offset, blank))
    const end = offset + length
    const equals = bytes.indexOf(0x3d, blank)
    if (
      blank < 0 ||
      !Number.isInteger(length) ||
      length < 5 ||
      end > bytes.length ||
      bytes[end - 1] !== 0x0a ||
      equals < 0 ||
      equals >= end
    ) {
      throw new P2pfsError('invalid', 'tar: PAX record is malformed')
    }
    const keyword = bytes.toString('latin1', blank + 1, equals)
    const value = bytes.toString('latin1', equals + 1, end - 1)
    if (keyword === 'GNU.sparse.offset' || keyword === 'GNU.sparse.numbytes') sparse.push(decimal(value, keyword))
    else into.set(keyword, value)
    offset = end
  }
}

/** @throws invalid */
export function decimal(value: ByteString, keyword: string): number {
  const parsed = Number(value)
  if (!/^[-+]?[0-9]+$/.test(value))
    throw new P2pfsError('invalid', `tar: PAX ${keyword} is not a number: ${value.slice(0, 40)}`)
  if (!Number.isSafeInteger(parsed))
    throw new P2pfsError('invalid', `tar: PAX ${keyword} is out of range: ${value.slice(0, 40)}`)
  return parsed
}

/** Reads decimal seconds with a fraction. Negative ones are rounded down, so that nanoseconds are never negative. */
export function paxTime(value: ByteString): { seconds: number; nanoseconds: number } {
  const match = /^([-+]?)([0-9]+)(?:\.([0-9]*))?$/.exec(value)
  if (match === null) throw new P2pfsError('invalid', `tar: PAX mtime is not a time: ${value.slice(0, 40)}`)
  const [, sign, whole = '0', fraction = ''] = match
  const seconds = Number(whole)
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'))
  if (!Number.isSafeInteger(seconds)) throw new P2pfsError('invalid', 'tar: PAX mtime is out of range')
  if (sign !== '-') return { seconds, nanoseconds }
  return nanoseconds === 0
    ? { seconds: -seconds || 0, nanoseconds: 0 }
    : { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds }
}
