import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { constants, deflateRawSync, gunzipSync, gzipSync } from 'node:zlib'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { DeflateScanner } from '../../../../node/image/gzip/deflate-scanner.ts'
import { GzipScanner, maxWindowBytes, type BlockStart } from '../../../../node/image/gzip/gzip-scanner.ts'
import { resumeGzip } from '../../../../node/image/gzip/resume.ts'
import { createRandom } from '../../../random.ts'

/** Text, code, zeros and noise: what makes compressors begin new blocks. */
function sample(bytes: number, seed: number): Buffer {
  const random = createRandom(seed)
  const source = execFileSync('tar', ['-C', '/usr/lib', '-cf', '-', '--sort=name', 'os-release', 'apt'], { maxBuffer: 2 ** 28 })
  const pieces: Buffer[] = []
  for (let total = 0; total < bytes; ) {
    const kind = random.below(4)
    const length = 1 + random.below(120_000)
    const at = random.below(source.length)
    const piece = kind === 0 ? Buffer.from(random.bytes(length)) : kind === 1 ? Buffer.alloc(length, random.below(3)) : source.subarray(at, at + length)
    pieces.push(piece)
    total += piece.length
  }
  return Buffer.concat(pieces).subarray(0, bytes)
}

function scan(bytes: Buffer, pieceBytes: number): BlockStart[] {
  const starts: BlockStart[] = []
  const scanner = new GzipScanner((start) => starts.push(start))
  for (let at = 0; at < bytes.length; at += pieceBytes) scanner.push(bytes.subarray(at, at + pieceBytes))
  scanner.finish()
  return starts
}

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of source) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** Each decodes all of the rest. */
const maxResumes = 80

async function assertResumes(bytes: Buffer, output: Buffer, starts: readonly BlockStart[]): Promise<Set<number>> {
  const bits = new Set<number>()
  const every = Math.ceil(starts.length / maxResumes)
  for (const [i, { bitOffset, outputOffset, windowBytes }] of starts.entries()) {
    if (i % every !== 0) continue
    const bit = bitOffset % 8
    bits.add(bit)
    const from = Math.floor(bitOffset / 8)
    // All of the rest, and a part that ends anywhere.
    for (const to of [bytes.length, Math.min(bytes.length, from + 20_000)]) {
      const resumed = await collect(resumeGzip(bytes.subarray(from, to), { bit, window: output.subarray(outputOffset - windowBytes, outputOffset) }))
      assert.ok(resumed.equals(output.subarray(outputOffset, outputOffset + resumed.length)), `bit ${bitOffset}`)
      if (to === bytes.length) assert.equal(outputOffset + resumed.length, output.length)
    }
  }
  return bits
}

const output = sample(3_000_000, 1)
const compressors: [string, (bytes: Buffer) => Buffer][] = [
  ['level 1', (bytes) => gzipSync(bytes, { level: 1 })],
  ['level 6', (bytes) => gzipSync(bytes)],
  ['level 9', (bytes) => gzipSync(bytes, { level: 9 })],
  ['stored blocks', (bytes) => gzipSync(bytes, { level: 0 })],
  ['fixed codes', (bytes) => gzipSync(bytes, { strategy: constants.Z_FIXED })],
  ['small blocks', (bytes) => gzipSync(bytes, { memLevel: 1 })],
  ['several members', (bytes) => Buffer.concat([gzipSync(bytes.subarray(0, 900_000)), gzipSync(Buffer.alloc(0)), gzipSync(bytes.subarray(900_000, 900_100)), gzipSync(bytes.subarray(900_100))])],
  ['zeros behind the end', (bytes) => Buffer.concat([gzipSync(bytes), Buffer.alloc(500)])],
  ['gzip(1), with a name', (bytes) => execFileSync('sh', ['-c', 'cd "$(mktemp -d)" && cat > name && gzip --name name && cat name.gz && rm -r "$PWD"'], { input: bytes, maxBuffer: 2 ** 28 })],
]
for (const [name, compress] of compressors) {
  test(`every block of a gzip of ${name} is found, and decoding resumes there`, async () => {
    const bytes = compress(output)
    assert.ok(gunzipSync(bytes).equals(output))
    const starts = scan(bytes, 65_536)
    const bits = await assertResumes(bytes, output, starts)
    if (name === 'small blocks') assert.equal(bits.size, 8, 'all bits of a byte occur')
  })
}

test('what is found does not depend on how the stream comes', () => {
  const bytes = gzipSync(output.subarray(0, 400_000), { memLevel: 1 })
  const whole = scan(bytes, bytes.length)
  assert.ok(whole.length > 20)
  for (const pieceBytes of [1, 7, 600, 4096]) assert.deepEqual(scan(bytes, pieceBytes), whole)
})

test('the window is what the block can refer to: nothing at the start of a member, 32 KiB at most', () => {
  const bytes = Buffer.concat([gzipSync(output.subarray(0, 500_000), { memLevel: 2 }), gzipSync(output.subarray(500_000, 600_000), { memLevel: 1 })])
  const starts = scan(bytes, 10_000)
  assert.equal(starts[0]?.windowBytes, 0)
  assert.ok(starts.some(({ outputOffset, windowBytes }) => outputOffset === 500_000 && windowBytes === 0))
  assert.ok(starts.every(({ windowBytes }) => windowBytes <= maxWindowBytes))
})

test('a damaged or short stream is invalid to the scanner, or scanned to its end: nothing else happens', () => {
  const bytes = gzipSync(output.subarray(0, 60_000))
  for (let seed = 1; seed <= 600; seed++) {
    const random = createRandom(seed)
    const damaged = Buffer.from(seed % 3 === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes)
    for (let i = random.below(4); i >= 0 && damaged.length > 0; i--) damaged[random.below(damaged.length)]! ^= 1 << random.below(8)
    try {
      scan(damaged, 1 + random.below(5000))
    } catch (error) {
      assert.ok(isP2pfsError(error, 'invalid'), `seed ${seed}: ${String(error)}`)
    }
  }
})

test('deflate without gzip around it is followed to its end, and what lies beyond is handed back', () => {
  const raw = deflateRawSync(output.subarray(0, 100_000))
  const scanner = new DeflateScanner(() => undefined)
  const beyond = scanner.push(Buffer.concat([raw, Buffer.from('beyond')]))
  assert.equal(Buffer.from(beyond!).toString(), 'beyond')
  assert.equal(scanner.outputOffset, 100_000)
})
