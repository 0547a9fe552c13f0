import {
  base256,
  encodeHeader,
  fitsUstar,
  maxElevenDigits,
  maxFieldPath,
  maxSevenDigits,
  recordBytes,
  withChecksum,
  type HeaderFields,
} from './tar-header.ts'

/** Types of POSIX.1-2017 pax, "ustar Interchange Format", typeflag. */
export const tarTypes = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  character: '3',
  block: '4',
  directory: '5',
  fifo: '6',
} as const

export interface TarEntry {
  /** Latin-1: one character per byte, so that names which are not UTF-8 can be written. */
  path: string
  type: keyof typeof tarTypes
  mode?: number
  uid?: number
  gid?: number
  mtime?: { seconds: number; nanoseconds: number }
  linkTarget?: string
  device?: { major: number; minor: number }
  /** Attribute name to value, both Latin-1. */
  xattrs?: Readonly<Record<string, string>>
  content?: Uint8Array
  /** The content has `sizeBytes`, all zeros except these pieces. */
  sparse?: SparseContent
  /**
   * Encoding of names and numbers for which a plain header has no room: PAX records (the default; the only one with
   * attributes and nanoseconds), GNU's long names and base-256 numbers, or none. `base256` is GNU's with all numbers in
   * base 256.
   */
  encoding?: 'pax' | 'gnu' | 'base256' | 'ustar'
}

export interface SparseContent {
  sizeBytes: number
  pieces: readonly { offset: number; bytes: Uint8Array }[]
  /** GNU tar manual, "Storing Sparse Files": the old header type `S`, or a PAX format; 1.0 by default. */
  format?: 'S' | '0.0' | '0.1' | '1.0'
}

/** Pieces in a header of type `S`, and in each record that continues it. */
const oldSparseInHeader = 4
const oldSparseInRecord = 21

/**
 * Writes an archive with exactly these entries. Archivers refuse some of them, like a hard link to a file of a lower
 * layer, or a device node that is written without root.
 * @throws TypeError for entries that their encoding cannot hold
 */
export function writeTar(entries: readonly TarEntry[]): Buffer {
  return Buffer.concat([...entries.flatMap(entryBlocks), Buffer.alloc(2 * recordBytes)])
}

/** A PAX global extended header. The entries that it describes follow it. */
export function globalHeader(records: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(extension('g', 'pax_global_header', paxRecords(Object.entries(records)), 'ustar'))
}

function entryBlocks(entry: TarEntry): Buffer[] {
  const { sparse } = entry
  const encoding = sparse?.format === 'S' ? 'gnu' : (entry.encoding ?? 'pax')
  const fields: HeaderFields = {
    path: entry.path,
    typeflag: tarTypes[entry.type],
    sizeBytes: entry.content?.length ?? 0,
    mode: entry.mode ?? (entry.type === 'directory' ? 0o755 : 0o644),
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    mtimeSeconds: entry.mtime?.seconds ?? 0,
    linkTarget: entry.linkTarget ?? '',
    device: entry.device ?? { major: 0, minor: 0 },
  }
  if (encoding === 'pax') return paxBlocks(entry, fields)
  if (entry.xattrs !== undefined || (entry.mtime?.nanoseconds ?? 0) !== 0)
    throw new TypeError(`${encoding} has neither attributes nor nanoseconds`)
  if (encoding === 'ustar') return [encodeHeader(fields, 'ustar'), padded(Buffer.from(entry.content ?? []))]
  const long: Buffer[] = []
  if (fields.linkTarget.length > maxFieldPath)
    long.push(...extension('K', '././@LongLink', Buffer.from(`${fields.linkTarget}\0`, 'latin1'), 'gnu'))
  if (fields.path.length > maxFieldPath)
    long.push(...extension('L', '././@LongLink', Buffer.from(`${fields.path}\0`, 'latin1'), 'gnu'))
  const short = {
    ...fields,
    path: fields.path.slice(0, maxFieldPath),
    linkTarget: fields.linkTarget.slice(0, maxFieldPath),
  }
  return [
    ...long,
    ...(sparse === undefined
      ? [encodeHeader(short, encoding), padded(Buffer.from(entry.content ?? []))]
      : oldSparse(short, sparse)),
  ]
}

function paxBlocks({ path, type, mtime, xattrs = {}, sparse, content }: TarEntry, fields: HeaderFields): Buffer[] {
  const records: [string, string][] = Object.entries(xattrs).map(([name, value]) => [`SCHILY.xattr.${name}`, value])
  const header = { ...fields }
  if (mtime !== undefined && (mtime.nanoseconds !== 0 || mtime.seconds < 0 || mtime.seconds > maxElevenDigits)) {
    records.push(['mtime', paxTime(mtime)])
    header.mtimeSeconds = 0
  }
  for (const id of ['uid', 'gid'] as const) {
    if (fields[id] >= 0 && fields[id] <= maxSevenDigits) continue
    records.push([id, String(fields[id])])
    header[id] = 0
  }
  if (fields.linkTarget.length > maxFieldPath) {
    records.push(['linkpath', fields.linkTarget])
    header.linkTarget = ''
  }
  let body = Buffer.from(content ?? [])
  if (sparse !== undefined) {
    if (type !== 'file') throw new TypeError('only files are sparse')
    records.push(...sparseRecords(sparse, path))
    body = Buffer.concat(sparse.pieces.map(({ bytes }) => bytes))
    if ((sparse.format ?? '1.0') === '1.0') body = Buffer.concat([sparseMap(sparse), body])
    header.path = 'GNUSparseFile.0/x'
  }
  // Only entries of format 0.0 keep their name.
  if ((sparse === undefined && !fitsUstar(path)) || sparse?.format === '0.0') {
    records.push(['path', path])
    header.path = 'long'
  }
  header.sizeBytes = body.length
  const pax = records.length === 0 ? [] : extension('x', 'PaxHeaders/x', paxRecords(records), 'ustar')
  return [...pax, encodeHeader(header, 'ustar'), padded(body)]
}

/** A pseudo entry that describes the next entry, or all that follow. */
function extension(typeflag: string, path: string, body: Buffer, format: 'ustar' | 'gnu'): Buffer[] {
  const fields = {
    path,
    typeflag,
    sizeBytes: body.length,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    linkTarget: '',
    device: { major: 0, minor: 0 },
  }
  return [encodeHeader(fields, format), padded(body)]
}

/** `LENGTH NAME=VALUE\n`, where the length counts itself. */
function paxRecords(records: readonly (readonly [string, string])[]): Buffer {
  const lines = records.map(([name, value]) => {
    const rest = ` ${name}=${value}\n`
    let length = rest.length + 1
    while (String(length).length + rest.length !== length) length = String(length).length + rest.length
    return Buffer.from(`${length}${rest}`, 'latin1')
  })
  return Buffer.concat(lines)
}

/** Decimal seconds; a fraction counts away from zero. */
function paxTime({ seconds, nanoseconds }: { seconds: number; nanoseconds: number }): string {
  if (nanoseconds === 0) return String(seconds)
  const digits = (value: number): string => String(value).padStart(9, '0')
  return seconds < 0 ? `-${-seconds - 1}.${digits(1_000_000_000 - nanoseconds)}` : `${seconds}.${digits(nanoseconds)}`
}

/** The offset and length of each piece. The last pair has length 0 and tells the end of the file. */
function sparsePairs({ sizeBytes, pieces }: SparseContent): [number, number][] {
  return [...pieces.map(({ offset, bytes }): [number, number] => [offset, bytes.length]), [sizeBytes, 0]]
}

function sparseRecords(sparse: SparseContent, path: string): [string, string][] {
  const { sizeBytes, format = '1.0' } = sparse
  const pairs = sparsePairs(sparse)
  if (format === '1.0') {
    return [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.name', path],
      ['GNU.sparse.realsize', String(sizeBytes)],
    ]
  }
  const counted: [string, string][] = [
    ['GNU.sparse.size', String(sizeBytes)],
    ['GNU.sparse.numblocks', String(pairs.length)],
  ]
  if (format === '0.1') return [...counted, ['GNU.sparse.name', path], ['GNU.sparse.map', pairs.flat().join(',')]]
  return [
    ...counted,
    ...pairs.flatMap(([offset, length]): [string, string][] => [
      ['GNU.sparse.offset', String(offset)],
      ['GNU.sparse.numbytes', String(length)],
    ]),
  ]
}

/** GNU tar manual, "PAX Format, Versions 1.0": a map in decimal lines, padded to a record, before the pieces. */
function sparseMap(sparse: SparseContent): Buffer {
  const pairs = sparsePairs(sparse)
  return padded(Buffer.from([pairs.length, ...pairs.flat()].map((number) => `${number}\n`).join('')))
}

/** GNU tar manual, "Old GNU Format": the map in the header and in records after it. */
function oldSparse(fields: HeaderFields, sparse: SparseContent): Buffer[] {
  const pairs = sparsePairs(sparse)
  const body = Buffer.concat(sparse.pieces.map(({ bytes }) => bytes))
  const header = encodeHeader({ ...fields, typeflag: 'S', sizeBytes: body.length }, 'gnu')
  const put = (record: Buffer, offset: number, part: readonly [number, number][]): void => {
    for (const [i, pair] of part.entries())
      for (const [j, value] of pair.entries()) record.set(base256(value, 12), offset + i * 24 + j * 12)
  }
  put(header, 386, pairs.slice(0, oldSparseInHeader))
  header[482] = pairs.length > oldSparseInHeader ? 1 : 0
  header.set(base256(sparse.sizeBytes, 12), 483)
  const records: Buffer[] = []
  for (let first = oldSparseInHeader; first < pairs.length; first += oldSparseInRecord) {
    const record = Buffer.alloc(recordBytes)
    put(record, 0, pairs.slice(first, first + oldSparseInRecord))
    record[504] = first + oldSparseInRecord < pairs.length ? 1 : 0
    records.push(record)
  }
  return [withChecksum(header), ...records, padded(body)]
}

function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % recordBytes
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(recordBytes - rest)])
}
