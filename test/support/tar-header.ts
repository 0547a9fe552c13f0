export const recordBytes = 512

/** The fields of one 512-byte header; text is Latin-1, one character per byte. */
export interface HeaderFields {
  path: string
  typeflag: string
  sizeBytes: number
  mode: number
  uid: number
  gid: number
  mtimeSeconds: number
  linkTarget: string
  device: { major: number; minor: number }
}

/** Bytes of the name and link name fields. */
export const maxFieldPath = 100
/** Bytes of the prefix field, ustar only. */
const maxPrefix = 155

/** The largest numbers of seven, and of eleven, octal digits. */
export const maxSevenDigits = 0o7777777
export const maxElevenDigits = 0o77777777777

/**
 * POSIX.1-2017 pax, table "ustar Header Block", or GNU's variant of it (GNU tar manual, "Basic Tar Format"), which
 * differs in its magic, has base-256 numbers for those that octal digits cannot hold, and no prefix.
 * @throws TypeError for fields that the format cannot hold
 */
export function encodeHeader(fields: HeaderFields, format: 'ustar' | 'gnu' | 'base256'): Buffer {
  const block = Buffer.alloc(recordBytes)
  const number = (value: number, offset: number, width: number): void => {
    if (format !== 'base256' && value >= 0 && value < 8 ** (width - 1))
      block.write(value.toString(8).padStart(width - 1, '0'), offset, 'latin1')
    else if (format !== 'ustar') block.set(base256(value, width), offset)
    else throw new TypeError(`ustar cannot say ${value} in ${width} bytes`)
  }
  const { name, prefix } = splitPath(fields.path, format)
  if (fields.linkTarget.length > maxFieldPath) throw new TypeError('link target is too long for a header')
  block.write(name, 0, 'latin1')
  number(fields.mode, 100, 8)
  number(fields.uid, 108, 8)
  number(fields.gid, 116, 8)
  number(fields.sizeBytes, 124, 12)
  number(fields.mtimeSeconds, 136, 12)
  block.write(fields.typeflag, 156, 'latin1')
  block.write(fields.linkTarget, 157, 'latin1')
  block.write(format === 'ustar' ? 'ustar\x0000' : 'ustar  \0', 257, 'latin1')
  number(fields.device.major, 329, 8)
  number(fields.device.minor, 337, 8)
  block.write(prefix, 345, 'latin1')
  return withChecksum(block)
}

/** Sets the checksum of a header: the sum of its bytes, with blanks in place of itself. */
export function withChecksum(block: Buffer): Buffer {
  block.fill(' ', 148, 156)
  let sum = 0
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** Whether a ustar header has room for the path, in its name and prefix. */
export function fitsUstar(path: string): boolean {
  return path.length <= maxFieldPath || splitAt(path) >= 0
}

/** Two's complement, the highest bit of the first byte set. */
export function base256(value: number, width: number): Buffer {
  const bytes = Buffer.alloc(width)
  let rest = BigInt(value)
  for (let i = width - 1; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn)
  bytes[0]! |= 0x80
  return bytes
}

function splitPath(path: string, format: 'ustar' | 'gnu' | 'base256'): { name: string; prefix: string } {
  if (path.length <= maxFieldPath) return { name: path, prefix: '' }
  const slash = format === 'ustar' ? splitAt(path) : -1
  if (slash < 0) throw new TypeError('path is too long for a header')
  return { name: path.slice(slash + 1), prefix: path.slice(0, slash) }
}

/** The index of the slash between prefix and name; negative if no slash fits. */
function splitAt(path: string): number {
  const slash = path.indexOf('/', Math.max(1, path.length - maxFieldPath - 1))
  return slash > maxPrefix || slash === path.length - 1 ? -1 : slash
}
