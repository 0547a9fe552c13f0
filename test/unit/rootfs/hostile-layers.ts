import { gzipSync, zstdCompressSync } from 'node:zlib'
import { encodeHeader } from '../../support/tar-header.ts'
import type { LayerLimits } from '../../../node/rootfs/layer-limits.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'

export const mebibyte = 1024 * 1024
export const smallLimits: LayerLimits = { maxLayerBytes: 16 * mebibyte, maxMetadataBytes: mebibyte }

type Fields = Partial<Parameters<typeof encodeHeader>[0]>
const plain = {
  typeflag: '0',
  sizeBytes: 0,
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  linkTarget: '',
  device: { major: 0, minor: 0 },
}

/** A member of a tar. Its header may have another size than its content. */
export function member(path: string, content: Buffer | string = '', fields: Fields = {}): Buffer {
  const bytes = Buffer.from(content)
  return Buffer.concat([
    encodeHeader({ ...plain, path, sizeBytes: bytes.length, ...fields }, 'gnu'),
    bytes,
    Buffer.alloc((512 - (bytes.length % 512)) % 512),
  ])
}

/** A header with one field set to other bytes, and with the right checksum. */
function forged(header: Buffer, offset: number, value: Buffer): Buffer {
  const changed = Buffer.from(header)
  value.copy(changed, offset)
  changed.fill(0x20, 148, 156)
  const sum = changed.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  changed.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return changed
}

function pax(records: Record<string, string>): Buffer {
  const lines = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.byteLength(` ${key}=${value}\n`, 'latin1')
    let length = rest
    while (String(length).length + rest !== length) length = String(length).length + rest
    return `${length} ${key}=${value}\n`
  })
  return member('PaxHeaders/x', Buffer.from(lines.join(''), 'latin1'), { typeflag: 'x' })
}

export const end = Buffer.alloc(1024)
/** Stands before the bad entry, so that the store has chunks when that is read. */
export const good = member('good', createRandom(5).bytes(mebibyte))
export const tarOf = (...members: Buffer[]): Buffer => Buffer.concat([good, ...members, end])

export interface HostileLayer {
  blob: Buffer
  diffId?: Digest
  digest?: Digest
  sizeBytes?: number
}

export interface Attack {
  layers: HostileLayer[]
  limits?: LayerLimits
  entry?: string
  message: RegExp
}

const attack = (tar: Buffer, message: RegExp, entry?: string, more: Partial<Attack> = {}): Attack => ({
  layers: [{ blob: tar }],
  message,
  ...(entry === undefined ? {} : { entry }),
  ...more,
})
export const bigFile = createRandom(6).bytes(mebibyte)
export const whole = tarOf(member('big', bigFile))
const manyTimes = (bytes: Buffer, times: number): Buffer => Buffer.concat(Array.from({ length: times }, () => bytes))
/** A sparse file with one byte of data at the start of each of `count` blocks. */
const combed = (count: number): Buffer => {
  const map = Array.from({ length: count }, (_, i) => `${i * 4096},1`).join(',')
  return Buffer.concat([
    pax({ 'GNU.sparse.size': String(count * 4096), 'GNU.sparse.name': 'combed', 'GNU.sparse.map': map }),
    member('x', 'd'.repeat(count)),
  ])
}

/** Layers that an import must refuse, by what is wrong with them. */
export const attacks: Record<string, () => Attack> = {
  'a path that leaves the image': () =>
    attack(tarOf(member('a/../../etc/passwd', 'x')), /leaves the image/, 'a/../../etc/passwd'),
  'a hard link that leaves the image': () =>
    attack(tarOf(member('link', '', { typeflag: '1', linkTarget: '../../etc/shadow' })), /leaves the image/, 'link'),
  'a loop of symbolic links': () =>
    attack(
      tarOf(
        member('a', '', { typeflag: '2', linkTarget: 'b' }),
        member('b', '', { typeflag: '2', linkTarget: 'a' }),
        member('a/file', 'x'),
      ),
      /too many symbolic links/,
      'a/file',
    ),
  'a hard link to itself': () =>
    attack(tarOf(member('self', '', { typeflag: '1', linkTarget: 'self' })), /not there/, 'self'),
  'hard links in a circle': () =>
    attack(
      tarOf(
        member('one', '', { typeflag: '1', linkTarget: 'two' }),
        member('two', '', { typeflag: '1', linkTarget: 'one' }),
      ),
      /not there/,
      'one',
    ),
  'a plain tar cut short': () => attack(whole.subarray(0, whole.length - mebibyte / 2), /cut short/, 'big'),
  'a gzip cut short': () => {
    const blob = gzipSync(whole)
    return {
      layers: [{ blob: blob.subarray(0, blob.length - mebibyte / 2), diffId: digestOf(whole) }],
      entry: 'big',
      message: /damaged or cut short/,
    }
  },
  'a zstd cut short': () => {
    const blob = zstdCompressSync(whole)
    return {
      layers: [{ blob: blob.subarray(0, blob.length - mebibyte / 2), diffId: digestOf(whole) }],
      entry: 'big',
      message: /damaged or cut short/,
    }
  },
  'a damaged gzip': () => ({
    layers: [{ blob: gzipSync(whole).fill(0x55, 1.5 * mebibyte, 1.5 * mebibyte + 70_000), diffId: digestOf(whole) }],
    entry: 'big',
    message: /damaged or cut short/,
  }),
  'a damaged zstd': () => ({
    layers: [
      { blob: zstdCompressSync(whole).fill(0x55, 1.5 * mebibyte, 1.5 * mebibyte + 200_000), diffId: digestOf(whole) },
    ],
    entry: 'big',
    message: /damaged or cut short|another digest|uncompressed it is/,
  }),
  'a damaged header': () =>
    attack(
      tarOf(member('first', 'x'), Buffer.from(member('second', 'x')).fill(0x41, 100, 108)),
      /checksum|octal/,
      'second',
    ),
  'a size beyond the tar': () =>
    attack(Buffer.concat([good, member('liar', 'x', { sizeBytes: 10 * mebibyte })]), /cut short/, 'liar'),
  'a negative size': () =>
    attack(
      tarOf(forged(member('negative', 'x'), 124, Buffer.from('ffffffffffffffffffffffff', 'hex'))),
      /negative/,
      'negative',
    ),
  'a size of more than 2^53': () =>
    attack(
      tarOf(forged(member('huge', 'x'), 124, Buffer.from('800000007fffffffffffffff', 'hex'))),
      /too large/,
      'huge',
    ),
  'a size of a petabyte': () =>
    attack(tarOf(member('vast', 'x', { sizeBytes: 2 ** 50 })), /larger than 16MiB.*--max-layer-size/, 'vast', {
      limits: smallLimits,
    }),
  'a PAX size that is no number': () =>
    attack(tarOf(pax({ size: '99999999999999999999' }), member('paxed', 'x')), /PAX size is out of range/, 'paxed'),
  'a gzip bomb': () => {
    const tar = tarOf()
    const bomb = gzipSync(Buffer.alloc(16 * mebibyte), { level: 9 })
    return {
      layers: [{ blob: Buffer.concat([gzipSync(tar), manyTimes(bomb, 4096)]), diffId: digestOf(tar) }],
      limits: smallLimits,
      message: /larger than 16MiB.*--max-layer-size/,
    }
  },
  'a zstd bomb': () => {
    const tar = tarOf()
    const bomb = zstdCompressSync(Buffer.alloc(16 * mebibyte))
    return {
      layers: [{ blob: Buffer.concat([zstdCompressSync(tar), manyTimes(bomb, 4096)]), diffId: digestOf(tar) }],
      limits: smallLimits,
      message: /larger than 16MiB.*--max-layer-size/,
    }
  },
  'a bomb in one entry': () => {
    const head = Buffer.concat([good, member('bomb', '', { sizeBytes: 2 ** 36 })])
    return {
      layers: [
        {
          blob: Buffer.concat([gzipSync(head), manyTimes(gzipSync(Buffer.alloc(16 * mebibyte)), 4096)]),
          diffId: digestOf(head),
        },
      ],
      limits: smallLimits,
      entry: 'bomb',
      message: /larger than 16MiB/,
    }
  },
  'endless attributes': () => {
    const records = Object.fromEntries(
      Array.from({ length: 3000 }, (_, i) => [`SCHILY.xattr.user.${i}`, 'v'.repeat(200)]),
    )
    return attack(
      tarOf(...Array.from({ length: 8 }, (_, i) => Buffer.concat([pax(records), member(`attributed-${i}`)]))),
      /more names, links, attributes and entries than 1MiB.*--max-layer-metadata/,
      'attributed-1',
      { limits: smallLimits },
    )
  },
  'an attribute list of gigabytes': () =>
    attack(
      tarOf(forged(pax({ 'SCHILY.xattr.user.x': 'v' }), 124, Buffer.from('77777777777 '))),
      /extended header/,
      'PaxHeaders/x',
    ),
  'endless entries': () =>
    attack(
      tarOf(...Array.from({ length: 10_000 }, (_, i) => member(`entry-${i}`))),
      /--max-layer-metadata/,
      undefined,
      { limits: smallLimits },
    ),
  'a sparse map that leaves its file': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '4096', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '0,1,999999999,1' }),
        member('x', 'ab'),
      ),
      /sparse map/,
      'sparse',
    ),
  'a sparse map that runs backwards': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '9000', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '4096,1,0,1' }),
        member('x', 'ab'),
      ),
      /sparse map/,
      'sparse',
    ),
  'a sparse map of more data than there is': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '9000', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '0,5000' }),
        member('x', 'ab'),
      ),
      /sparse map/,
      'sparse',
    ),
  'a sparse map that is no list of numbers': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '9000', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '0,many' }),
        member('x', 'ab'),
      ),
      /not a number|sparse map/,
    ),
  'a sparse file whose data is far more than the tar': () =>
    attack(tarOf(combed(8000)), /data of its files, is larger than 16MiB/, 'combed', { limits: smallLimits }),
  'another digest': () => ({
    layers: [{ blob: whole, digest: digestOf(Buffer.from('x')) }],
    message: /another digest/,
  }),
  'another diff id': () => ({
    layers: [{ blob: gzipSync(whole), diffId: digestOf(Buffer.from('x')) }],
    message: /image config says/,
  }),
  'a blob longer than declared': () => ({
    layers: [{ blob: whole, sizeBytes: whole.length - 100_000 }],
    message: /longer than its/,
  }),
  'a blob shorter than declared': () => ({
    layers: [{ blob: whole, sizeBytes: whole.length + 1 }],
    message: /has \d+ bytes, not/,
  }),
  'a good layer below a bad one': () => ({
    layers: [{ blob: whole }, { blob: tarOf(member('../x')) }],
    entry: '../x',
    message: /leaves the image/,
  }),
  'no tar at all': () => attack(createRandom(8).bytes(100_000), /checksum|octal/),
}
