import { P2pfsError } from '../../../protocol/errors.ts'
import type { ByteString } from '../../../protocol/layer-entry.ts'
import { parseHeader, parseNumber, recordBytes, type TarHeader } from './header.ts'
import { decimal, parsePax, paxTime, type PaxRecords } from './pax.ts'

/** A part of a sparse file that has data. */
export interface SparseFragment {
  offset: number
  lengthBytes: number
}

/** One member of the archive, with extended headers applied. Names are as they stand in the tar. */
export interface TarEntry {
  path: ByteString
  /** `0` file, `1` hard link, `2` symlink, `3` character, `4` block, `5` directory, `6` FIFO. */
  type: '0' | '1' | '2' | '3' | '4' | '5' | '6'
  mode: number
  uid: number
  gid: number
  mtime: { seconds: number; nanoseconds: number }
  linkName: ByteString
  device: { major: number; minor: number }
  /** Size of the file, holes included. */
  sizeBytes: number
  xattrs: Map<ByteString, ByteString>
  /** Undefined for a file without holes. */
  fragments: readonly SparseFragment[] | undefined
  /** Offset of the content in the tar, bytes. */
  contentOffset: number
  /** Bytes of content in the tar. */
  contentBytes: number
}

export interface TarHandler {
  entry: (entry: TarEntry) => void
  /** Content of the last entry, in order. The buffer is the parser's input: copy what you keep. */
  content: (bytes: Buffer) => void
}

/** Bound on a name or extended header, which are held in memory, bytes: a longer one is an attack or damage. */
const maxExtensionBytes = 1024 * 1024
/** The greatest id of Linux, which takes the number above it for "no id". */
const maxId = 0xfffffffe
/** The greatest device number that a layer index can hold; the writers of filesystems know Linux's narrower bounds. */
const maxDeviceNumber = 0xffffffff
const emptyRecord = Buffer.alloc(0)

type State = 'header' | 'content' | 'padding' | 'extension' | 'oldSparse' | 'sparseMap' | 'endMarker' | 'end'

/**
 * Reads a tar that is pushed in pieces of any size: ustar, PAX, GNU long names, base-256 numbers, sparse files of all
 * GNU kinds. Its memory is bounded by the longest extended header. In cases that the formats leave open, it does as
 * Go's archive/tar, with which containerd, Docker and umoci read layers. It skips PAX global headers, as containerd and
 * Docker do; umoci 0.4.7 refuses them, and sparse files with headers of type `S`.
 */
export class TarParser {
  readonly #handler: TarHandler
  #state: State = 'header'
  /** The first part of a record or extension that is not whole yet. */
  #pending: Buffer[] = []
  #pendingBytes = 0
  /** Bytes left of content, padding or extension. */
  #left = 0
  /** Bytes of padding behind the content or extension. */
  #padding = 0
  /** Offset in the tar of the next byte. */
  #offset = 0
  #extension = ''
  #locals: PaxRecords = new Map()
  #sparsePairs: number[] = []
  #longName: ByteString | undefined
  #longLink: ByteString | undefined
  #header: TarHeader | undefined
  #fragments: SparseFragment[] = []
  /** Whole lines of a sparse map in the content. */
  #mapLines: string[] = []
  /** The begin of the next line. */
  #mapRest = ''
  /** Bytes of the map so far. */
  #mapBytes = 0
  #realSize = 0
  #entry: TarEntry | undefined

  constructor(handler: TarHandler) {
    this.#handler = handler
  }

  /** @throws invalid naming the entry */
  push(input: Buffer): void {
    let offset = 0
    while (offset < input.length) {
      switch (this.#state) {
        case 'end':
          // Everything behind the end marker is padding.
          this.#offset += input.length - offset
          return
        case 'content': {
          const length = Math.min(this.#left, input.length - offset)
          this.#handler.content(input.subarray(offset, offset + length))
          offset += length
          this.#advance(length)
          if (this.#left === 0) this.#endContent()
          break
        }
        case 'padding': {
          const length = Math.min(this.#left, input.length - offset)
          offset += length
          this.#advance(length)
          if (this.#left === 0) this.#state = 'header'
          break
        }
        case 'header':
        case 'endMarker':
        case 'extension':
        case 'oldSparse':
        case 'sparseMap': {
          const wanted = (this.#state === 'extension' ? this.#left : recordBytes) - this.#pendingBytes
          const length = Math.min(wanted, input.length - offset)
          const piece = input.subarray(offset, offset + length)
          offset += length
          this.#offset += length
          if (length < wanted) {
            this.#pending.push(Buffer.from(piece))
            this.#pendingBytes += length
            return
          }
          const whole = this.#pendingBytes === 0 ? piece : Buffer.concat([...this.#pending, piece])
          this.#pending = []
          this.#pendingBytes = 0
          this.#take(whole)
          break
        }
      }
    }
  }

  /** Ends the input. @throws invalid where the tar ends within an entry */
  finish(): void {
    const between = this.#state === 'header' || this.#state === 'endMarker'
    if (this.#state === 'end' || this.#state === 'padding' || (between && this.#pendingBytes === 0)) return
    throw new P2pfsError('invalid', 'tar: cut short', { entry: this.#entry?.path ?? this.#header?.name ?? '' })
  }

  #advance(length: number): void {
    this.#left -= length
    this.#offset += length
  }

  #take(record: Buffer): void {
    try {
      if (this.#state === 'header') this.#takeHeader(record)
      else if (this.#state === 'endMarker') this.#takeEndMarker(record)
      else if (this.#state === 'extension') this.#takeExtension(record)
      else if (this.#state === 'oldSparse') this.#takeOldSparse(record)
      else this.#takeSparseMap(record)
    } catch (cause) {
      // Errors in an extended header do not name the entry that it is for.
      if (!(cause instanceof P2pfsError) || cause.details['entry'] !== undefined) throw cause
      throw new P2pfsError(cause.code, cause.message, {
        cause,
        entry: this.#pax('path') ?? this.#longName ?? this.#header?.name ?? '',
      })
    }
  }

  #takeHeader(record: Buffer): void {
    const parsed = parseHeader(record)
    if (parsed === undefined) {
      this.#state = 'endMarker'
      return
    }
    this.#header = parsed
    const isExtension = 'LKxg'.includes(parsed.type)
    const paxSize = isExtension ? undefined : this.#pax('size')
    const header = paxSize === undefined ? parsed : { ...parsed, sizeBytes: decimal(paxSize, 'size') }
    this.#header = header
    if (isExtension) {
      if (header.sizeBytes > maxExtensionBytes || header.sizeBytes < 0) {
        throw new P2pfsError(
          'invalid',
          `tar: extended header of ${header.sizeBytes} bytes; ${maxExtensionBytes} is the most`,
          { entry: header.name },
        )
      }
      this.#extension = header.type
      this.#left = header.sizeBytes
      this.#padding = paddingAfter(header.sizeBytes)
      if (this.#left === 0) this.#takeExtension(emptyRecord)
      else this.#state = 'extension'
      return
    }
    if (header.type === 'S') {
      this.#fragments = []
      this.#realSize = parseNumber(record, 483, 12, header.name)
      this.#addFragments(record, 386, 4)
      if (record[482] === 1) this.#state = 'oldSparse'
      else this.#start(header, this.#fragments, this.#realSize)
      return
    }
    const map = this.#pax('GNU.sparse.map')
    const sparse = map !== undefined || this.#sparsePairs.length > 0 || this.#pax('GNU.sparse.major') === '1'
    if (sparse && header.type !== '\0' && header.type !== '0')
      throw new P2pfsError('invalid', 'tar: sparse, and no file', { entry: header.name })
    const realSize = this.#pax('GNU.sparse.realsize') ?? this.#pax('GNU.sparse.size')
    if (this.#pax('GNU.sparse.major') === '1') {
      // The map stands at the start of the content, in decimal lines, padded to whole records.
      this.#fragments = []
      this.#realSize = decimal(realSize ?? '', 'GNU.sparse.realsize')
      this.#mapLines = []
      this.#mapRest = ''
      this.#mapBytes = 0
      this.#state = 'sparseMap'
    } else if (sparse) {
      const numbers =
        map === undefined
          ? this.#sparsePairs
          : map === ''
            ? []
            : map.split(',').map((value) => decimal(value, 'GNU.sparse.map'))
      this.#start(header, pairs(numbers, header.name), decimal(realSize ?? '', 'GNU.sparse.size'))
    } else this.#start(header, undefined, undefined)
  }

  /** Two records of zeros end an archive, or one that is the last. */
  #takeEndMarker(record: Buffer): void {
    if (parseHeader(record) !== undefined) throw new P2pfsError('invalid', 'tar: an entry after the end of the archive')
    this.#state = 'end'
  }

  #takeExtension(bytes: Buffer): void {
    if (this.#extension === 'L') this.#longName = untilZero(bytes)
    else if (this.#extension === 'K') this.#longLink = untilZero(bytes)
    else if (this.#extension === 'x') {
      this.#locals = new Map()
      this.#sparsePairs = []
      parsePax(bytes, this.#locals, this.#sparsePairs)
    }
    this.#left = this.#padding
    this.#state = this.#left === 0 ? 'header' : 'padding'
  }

  #takeOldSparse(record: Buffer): void {
    this.#addFragments(record, 0, 21)
    if (record[504] === 1) return
    this.#start(this.#header!, this.#fragments, this.#realSize)
  }

  #addFragments(record: Buffer, offset: number, count: number): void {
    for (let i = 0; i < count; i++, offset += 24) {
      if (record[offset] === 0) return
      const entry = this.#header!.name
      this.#fragments.push({
        offset: parseNumber(record, offset, 12, entry),
        lengthBytes: parseNumber(record, offset + 12, 12, entry),
      })
      if (this.#fragments.length * 24 > maxExtensionBytes)
        throw new P2pfsError('invalid', 'tar: sparse map is too long', { entry })
    }
  }

  #takeSparseMap(record: Buffer): void {
    const header = this.#header!
    const [first = '', ...others] = record.toString('latin1').split('\n')
    const lines = [this.#mapRest + first, ...others]
    this.#mapRest = lines.pop()!
    this.#mapLines.push(...lines)
    this.#mapBytes += recordBytes
    if (this.#mapBytes > maxExtensionBytes || this.#mapBytes > header.sizeBytes)
      throw new P2pfsError('invalid', 'tar: sparse map is too long', { entry: header.name })
    if (this.#mapLines.length === 0) return
    const count = decimal(this.#mapLines[0]!, 'GNU.sparse.map')
    if (this.#mapLines.length < 1 + count * 2) return
    const numbers = this.#mapLines.slice(1, 1 + count * 2).map((line) => decimal(line, 'GNU.sparse.map'))
    this.#start(
      { ...header, sizeBytes: header.sizeBytes - this.#mapBytes },
      pairs(numbers, header.name),
      this.#realSize,
    )
  }

  /** The value of a keyword in the entry's extended header; undefined where it is missing or unset. */
  #pax(keyword: string): ByteString | undefined {
    const value = this.#locals.get(keyword)
    return value === '' ? undefined : value
  }

  #start(header: TarHeader, fragments: readonly SparseFragment[] | undefined, realSize: number | undefined): void {
    const longName = this.#longName === '' ? undefined : this.#longName
    const longLink = this.#longLink === '' ? undefined : this.#longLink
    const path = this.#pax('GNU.sparse.name') ?? longName ?? this.#pax('path') ?? header.name
    const linkName = longLink ?? this.#pax('linkpath') ?? header.linkName
    const fail = (message: string): never => {
      throw new P2pfsError('invalid', `tar: ${message}`, { entry: path })
    }
    let type = header.type === '\0' || header.type === '7' || header.type === 'S' ? '0' : header.type
    // Before ustar, a directory was a file whose name ends with a slash.
    if (type === '0' && path.endsWith('/') && header.type === '\0') type = '5'
    if (!'0123456'.includes(type)) fail(`entry of unknown type ${JSON.stringify(header.type)}`)
    const field = (keyword: string, fallback: number): number => {
      const value = this.#pax(keyword)
      return value === undefined ? fallback : decimal(value, keyword)
    }
    const contentBytes = type === '0' ? header.sizeBytes : 0
    const sizeBytes = realSize ?? contentBytes
    const id = (keyword: 'uid' | 'gid'): number => {
      const value = field(keyword, header[keyword])
      return linuxId(value) ?? fail(`${keyword} ${value} is out of range: Linux has 0 to ${maxId}`)
    }
    const device = { major: 0, minor: 0 }
    if (type === '3' || type === '4') {
      Object.assign(device, { major: header.devMajor, minor: header.devMinor })
      if (Math.min(device.major, device.minor) < 0 || Math.max(device.major, device.minor) > maxDeviceNumber)
        fail(`device number ${device.major}:${device.minor} is out of range`)
    }
    if (contentBytes < 0 || sizeBytes < 0) fail(`size ${Math.min(contentBytes, sizeBytes)} is negative`)
    if (path.includes('\0') || linkName.includes('\0')) fail('path with a zero byte')
    if (fragments !== undefined) checkFragments(fragments, sizeBytes, contentBytes, fail)
    const mtime = this.#pax('mtime')
    const xattrs = new Map<ByteString, ByteString>()
    for (const [keyword, value] of this.#locals)
      if (keyword.startsWith('SCHILY.xattr.')) xattrs.set(keyword.slice('SCHILY.xattr.'.length), value)
    const entry: TarEntry = {
      path,
      type: type as TarEntry['type'],
      mode: header.mode,
      uid: id('uid'),
      gid: id('gid'),
      mtime: mtime === undefined ? { seconds: header.mtimeSeconds, nanoseconds: 0 } : paxTime(mtime),
      linkName,
      device,
      sizeBytes,
      xattrs,
      fragments,
      contentOffset: this.#offset,
      contentBytes,
    }
    this.#locals = new Map()
    this.#sparsePairs = []
    this.#longName = undefined
    this.#longLink = undefined
    this.#entry = entry
    this.#handler.entry(entry)
    // Links have a size in some tars, but no content.
    this.#left = contentBytes
    this.#padding = paddingAfter(contentBytes)
    if (contentBytes === 0) this.#endContent()
    else this.#state = 'content'
  }

  #endContent(): void {
    this.#entry = undefined
    this.#left = this.#padding
    this.#state = this.#left === 0 ? 'header' : 'padding'
  }
}

/**
 * Writers with signed ids have -2 for nobody, for example. Unpackers pass such a number to chown, which takes its low
 * 32 bits: 4294967294. @returns undefined for a number that is no id of Linux
 */
function linuxId(value: number): number | undefined {
  const unsigned = value < 0 && value >= -(2 ** 31) ? value + 2 ** 32 : value
  return unsigned >= 0 && unsigned <= maxId ? unsigned : undefined
}

function paddingAfter(length: number): number {
  return (recordBytes - (length % recordBytes)) % recordBytes
}

function untilZero(bytes: Buffer): ByteString {
  const end = bytes.indexOf(0)
  return bytes.toString('latin1', 0, end < 0 ? bytes.length : end)
}

function pairs(numbers: readonly number[], entry: ByteString): SparseFragment[] {
  if (numbers.length % 2 !== 0) throw new P2pfsError('invalid', 'tar: sparse map is malformed', { entry })
  return Array.from({ length: numbers.length / 2 }, (_, i) => ({
    offset: numbers[i * 2]!,
    lengthBytes: numbers[i * 2 + 1]!,
  }))
}

function checkFragments(
  fragments: readonly SparseFragment[],
  sizeBytes: number,
  contentBytes: number,
  fail: (message: string) => never,
): void {
  let end = 0
  let total = 0
  for (const { offset, lengthBytes } of fragments) {
    if (offset < end || lengthBytes < 0 || offset + lengthBytes > sizeBytes)
      fail('sparse map is out of order, or leaves the file')
    end = offset + lengthBytes
    total += lengthBytes
  }
  if (total !== contentBytes) fail(`sparse map has ${total} bytes of data, the archive ${contentBytes}`)
}
