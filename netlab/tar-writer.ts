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
  /** The content is of `sizeBytes`, and zeros but for these pieces; written as GNU sparse format 1.0. */
  sparse?: { sizeBytes: number; pieces: readonly { offset: number; bytes: Uint8Array }[] }
}

const blockBytes = 512
/** Field widths of the ustar header. */
const maxShortPath = 100
/** What seven octal digits hold. */
const maxShortNumber = 0o7777777

/**
 * An archive in pax format with exactly these entries: for what no archiver can be talked into, like a hard link to a file
 * of a lower layer, or device nodes without being root.
 */
export function writeTar(entries: readonly TarEntry[]): Buffer {
  return Buffer.concat([...entries.flatMap(entryBlocks), Buffer.alloc(2 * blockBytes)])
}

function entryBlocks(entry: TarEntry): Buffer[] {
  const { path, mtime = { seconds: 0, nanoseconds: 0 }, linkTarget = '', uid = 0, gid = 0, xattrs = {}, sparse } = entry
  const body = sparse === undefined ? Buffer.from(entry.content ?? []) : sparseBody(sparse)
  const records: [string, string][] = Object.entries(xattrs).map(([name, value]) => [`SCHILY.xattr.${name}`, value])
  if (mtime.nanoseconds !== 0) {
    records.push(['mtime', `${mtime.seconds}.${String(mtime.nanoseconds).padStart(9, '0')}`])
  }
  if (uid > maxShortNumber) records.push(['uid', String(uid)])
  if (gid > maxShortNumber) records.push(['gid', String(gid)])
  if (linkTarget.length > maxShortPath) records.push(['linkpath', linkTarget])
  if (sparse !== undefined) {
    records.push(['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0'], ['GNU.sparse.name', path])
    records.push(['GNU.sparse.realsize', String(sparse.sizeBytes)])
  } else if (path.length > maxShortPath) {
    records.push(['path', path])
  }
  const pax = Buffer.concat(records.map(([name, value]) => paxRecord(name, value)))
  return [
    ...(pax.length === 0 ? [] : [header({ path: 'PaxHeaders/x', typeflag: 'x', sizeBytes: pax.length }), padded(pax)]),
    header({
      path: sparse === undefined ? path : 'GNUSparseFile.0/x',
      typeflag: tarTypes[entry.type],
      sizeBytes: body.length,
      mode: entry.mode ?? (entry.type === 'directory' ? 0o755 : 0o644),
      uid: uid > maxShortNumber ? 0 : uid,
      gid: gid > maxShortNumber ? 0 : gid,
      mtimeSeconds: mtime.seconds,
      linkTarget,
      ...(entry.device === undefined ? {} : { device: entry.device }),
    }),
    padded(body),
  ]
}

interface Header {
  path: string
  typeflag: string
  sizeBytes: number
  mode?: number
  uid?: number
  gid?: number
  mtimeSeconds?: number
  linkTarget?: string
  device?: { major: number; minor: number }
}

/** POSIX.1-2017 pax, table "ustar Header Block". */
function header({ path, typeflag, sizeBytes, mode = 0o644, uid = 0, gid = 0, mtimeSeconds = 0, linkTarget = '', device }: Header): Buffer {
  const block = Buffer.alloc(blockBytes)
  const octal = (value: number, offset: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, '0'), offset, 'latin1')
  }
  block.write(path.slice(0, maxShortPath), 0, 'latin1')
  octal(mode, 100, 7)
  octal(uid, 108, 7)
  octal(gid, 116, 7)
  octal(sizeBytes, 124, 11)
  octal(mtimeSeconds, 136, 11)
  block.fill(' ', 148, 156)
  block.write(typeflag, 156, 'latin1')
  block.write(linkTarget.slice(0, maxShortPath), 157, 'latin1')
  block.write('ustar\x0000', 257, 'latin1')
  octal(device?.major ?? 0, 329, 7)
  octal(device?.minor ?? 0, 337, 7)
  octal(block.reduce((sum, byte) => sum + byte, 0), 148, 6)
  block[154] = 0
  return block
}

/** `LENGTH NAME=VALUE\n`, where the length counts itself. */
function paxRecord(name: string, value: string): Buffer {
  const rest = ` ${name}=${value}\n`
  let length = rest.length + 1
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length
  return Buffer.from(`${length}${rest}`, 'latin1')
}

/** GNU tar manual, "PAX Format, Versions 1.0": a map in decimal lines, padded to a block, then the pieces. */
function sparseBody({ sizeBytes, pieces }: NonNullable<TarEntry['sparse']>): Buffer {
  const map = [...pieces.map(({ offset, bytes }) => [offset, bytes.length]), [sizeBytes, 0]]
  const text = [map.length, ...map.flat()].map((number) => `${number}\n`).join('')
  return Buffer.concat([padded(Buffer.from(text)), ...pieces.map(({ bytes }) => bytes)])
}

function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % blockBytes
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(blockBytes - rest)])
}
