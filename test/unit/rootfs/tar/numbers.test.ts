import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { TarParser, type TarEntry } from '../../../../node/rootfs/tar/parser.ts'
import { encodeHeader, withChecksum, type HeaderFields } from '../../../support/tar-header.ts'

/** A member without content, its numbers in base 256 where they have no octal form. */
function member(fields: Partial<HeaderFields>): Buffer {
  const plain = {
    path: 'entry',
    typeflag: '0',
    sizeBytes: 0,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    linkTarget: '',
  }
  return encodeHeader({ ...plain, device: { major: 0, minor: 0 }, ...fields }, 'gnu')
}

/** A PAX header of one record for the member behind it. */
function pax(keyword: string, value: string): Buffer {
  const rest = ` ${keyword}=${value}\n`
  const record = Buffer.alloc(512)
  const length = rest.length + 2
  record.write(`${length}${rest}`, 'latin1')
  assert.ok(length > 9 && length < 100)
  return Buffer.concat([member({ typeflag: 'x', sizeBytes: length }), record])
}

/** A header with other bytes at an offset. */
function forged(header: Buffer, offset: number, hex: string): Buffer {
  header.write(hex, offset, 'hex')
  return withChecksum(header)
}

function parse(...tar: Buffer[]): TarEntry {
  const entries: TarEntry[] = []
  const parser = new TarParser({ entry: (entry) => entries.push(entry), content: () => undefined })
  parser.push(Buffer.concat([...tar, Buffer.alloc(1024)]))
  parser.finish()
  assert.equal(entries.length, 1)
  return entries[0]!
}

test('a negative id is the id that chown makes of it, in base 256 and in PAX', () => {
  for (const [id, unsigned] of [
    [-2, 2 ** 32 - 2],
    [-3, 2 ** 32 - 3],
    [-65_536, 2 ** 32 - 65_536],
    [-(2 ** 31), 2 ** 31],
  ] as const) {
    assert.equal(parse(member({ uid: id })).uid, unsigned)
    assert.equal(parse(member({ gid: id })).gid, unsigned)
    assert.equal(parse(pax('uid', String(id)), member({})).uid, unsigned)
    assert.equal(parse(pax('gid', String(id)), member({})).gid, unsigned)
  }
})

test('numbers in base 256 are read like octal ones, and PAX numbers with a plus sign too', () => {
  const { uid, gid, mtime, device } = parse(
    member({
      typeflag: '4',
      uid: 2 ** 32 - 2,
      gid: 3_000_000,
      mtimeSeconds: -5,
      device: { major: 4095, minor: 2 ** 31 },
    }),
  )
  assert.deepEqual([uid, gid, mtime.seconds, device.major, device.minor], [2 ** 32 - 2, 3_000_000, -5, 4095, 2 ** 31])
  assert.equal(parse(pax('uid', '+1000'), member({})).uid, 1000)
  assert.deepEqual(parse(pax('mtime', '-1.5'), member({})).mtime, { seconds: -2, nanoseconds: 500_000_000 })
})

test('the size of an entry without content is ignored, even where it is negative', () => {
  assert.equal(parse(member({ typeflag: '5', sizeBytes: -1 })).sizeBytes, 0)
})

const refused: [string, () => Buffer[], RegExp][] = [
  ['an id above those of Linux', () => [member({ uid: 2 ** 32 - 1 })], /uid 4294967295 is out of range/],
  ['the id that stands for none', () => [member({ gid: -1 })], /gid -1 is out of range/],
  ['an id below 32 bits', () => [member({ uid: -(2 ** 31) - 1 })], /uid -2147483649 is out of range/],
  ['a PAX id of more than 32 bits', () => [pax('gid', '4294967296'), member({})], /gid 4294967296 is out of range/],
  ['a PAX id of more than 64 bits', () => [pax('uid', '18446744073709551616'), member({})], /PAX uid is out of range/],
  ['a PAX id that is no number', () => [pax('uid', 'nobody'), member({})], /PAX uid is not a number: nobody/],
  ['a negative size', () => [member({ sizeBytes: -1 })], /size -1 is negative/],
  [
    'a negative device number',
    () => [member({ typeflag: '3', device: { major: -1, minor: 3 } })],
    /device number -1:3 is out of range/,
  ],
  [
    'a device number of more than 32 bits',
    () => [member({ typeflag: '4', device: { major: 8, minor: 2 ** 32 } })],
    /device number 8:4294967296 is out of range/,
  ],
  ['an mtime of more than 2^53', () => [forged(member({}), 136, '800000007fffffffffffffff')], /number .* is too large/],
  ['a PAX mtime of more than 2^53', () => [pax('mtime', '99999999999999999.5'), member({})], /mtime is out of range/],
]
for (const [what, make, message] of refused) {
  test(`${what} is refused, naming the entry`, () => {
    assert.throws(
      () => parse(...make()),
      (error) => {
        assert.ok(isP2pfsError(error, 'invalid'), String(error))
        assert.match(error.message, message)
        return error.details['entry'] === 'entry'
      },
    )
  })
}
