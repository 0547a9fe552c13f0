import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { constants, deflateRawSync, gunzipSync, gzipSync } from 'node:zlib'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { DeflateScanner, maxWindowBytes } from '../../../../node/rootfs/gzip/deflate-scanner.ts'
import { GzipScanner, type BlockStart } from '../../../../node/rootfs/gzip/gzip-scanner.ts'
import { resumeGzip } from '../../../../node/rootfs/gzip/resume.ts'
import { createRandom } from '../../../support/random.ts'

/** Text, code, zeros and noise in turn: compressors begin new blocks where the kind changes. */
function sample(bytes: number, seed: number): Buffer {
  const random = createRandom(seed)
  const source = execFileSync('tar', ['-C', '/usr/lib', '-cf', '-', '--sort=name', 'os-release', 'apt'], {
    maxBuffer: 2 ** 28,
  })
  const pieces: Buffer[] = []
  for (let total = 0; total < bytes;) {
    const kind = random.below(4)
    const length = 1 + random.below(120_000)
    const at = random.below(source.length)
    const piece =
      kind === 0
        ? Buffer.from(random.bytes(length))
        : kind === 1
          ? Buffer.alloc(length, random.below(3))
          : source.subarray(at, at + length)
    pieces.push(piece)
    total += piece.length
  }
  return Buffer.concat(pieces).subarray(0, bytes)
}

interface Block extends BlockStart {
  /** Marks the needed bytes of the window; undefined where nobody asked. */
  needed?: Uint8Array
}

interface Scanned {
  starts: Block[]
  stopPoints: [streamBytes: number, outputBytes: number][]
}

const stopDistanceBytes = 1000

/** @param asked whether to ask for the needs of the block of this index */
function scan(bytes: Buffer, pieceBytes: number, asked: (index: number) => boolean = () => false): Scanned {
  const starts: Block[] = []
  const stopPoints: Scanned['stopPoints'] = []
  let askedLast = 0
  const scanner = new GzipScanner(
    {
      block: (start) => {
        const ask =
          asked(starts.push(start) - 1) && start.outputOffset - starts[askedLast]!.outputOffset >= maxWindowBytes
        if (ask) askedLast = starts.length - 1
        return ask
      },
      needed: (needed) => {
        starts[askedLast]!.needed = needed
      },
      stopPoint: (streamBytes, outputBytes) => stopPoints.push([streamBytes, outputBytes]),
    },
    { stopDistanceBytes },
  )
  for (let at = 0; at < bytes.length; at += pieceBytes) scanner.push(bytes.subarray(at, at + pieceBytes))
  scanner.finish()
  return { starts, stopPoints }
}

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of source) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** Each resume decodes the rest of the stream, so not every block of a long one is tried. */
const maxResumes = 30

async function assertResumes(bytes: Buffer, output: Buffer, starts: readonly BlockStart[]): Promise<void> {
  const every = Math.ceil(starts.length / maxResumes)
  for (const [i, { bitOffset, outputOffset, windowBytes }] of starts.entries()) {
    if (i % every !== 0) continue
    const bit = bitOffset % 8
    const from = Math.floor(bitOffset / 8)
    // The whole rest, and a part that ends anywhere.
    for (const to of [bytes.length, Math.min(bytes.length, from + 20_000)]) {
      const resumed = await collect(
        resumeGzip(bytes.subarray(from, to), {
          bit,
          window: output.subarray(outputOffset - windowBytes, outputOffset),
        }),
      )
      assert.ok(resumed.equals(output.subarray(outputOffset, outputOffset + resumed.length)), `bit ${bitOffset}`)
      if (to === bytes.length) assert.equal(outputOffset + resumed.length, output.length)
    }
  }
}

/**
 * Each block resumes with the needed bytes of its window alone; each stop point keeps its promise, and wastes little.
 */
async function assertSparse(bytes: Buffer, output: Buffer): Promise<void> {
  for (const phase of [0, 1, 2]) {
    const { starts, stopPoints } = scan(bytes, 30_000, (index) => index % 3 === phase)
    const every = Math.ceil(starts.length / maxResumes)
    for (const [i, { bitOffset, outputOffset, windowBytes, needed }] of starts.entries()) {
      if (needed === undefined || i % every !== phase % every) continue
      const window = Buffer.from(output.subarray(outputOffset - windowBytes, outputOffset))
      for (const index of window.keys()) if (needed[maxWindowBytes - windowBytes + index] === 0) window[index] = 0xff
      const from = Math.floor(bitOffset / 8)
      const resumed = await collect(resumeGzip(bytes.subarray(from, from + 150_000), { bit: bitOffset % 8, window }))
      assert.ok(resumed.equals(output.subarray(outputOffset, outputOffset + resumed.length)), `bit ${bitOffset}`)
    }
    for (const [i, [streamBytes, outputBytes]] of stopPoints.entries()) {
      if (i % Math.ceil(stopPoints.length / 20) !== phase) continue
      const start = starts.findLast(({ bitOffset }) => bitOffset <= (streamBytes - 1000) * 8)
      if (start === undefined) continue
      const { bitOffset, outputOffset, windowBytes } = start
      const resumed = await collect(
        resumeGzip(bytes.subarray(Math.floor(bitOffset / 8), streamBytes), {
          bit: bitOffset % 8,
          window: output.subarray(outputOffset - windowBytes, outputOffset),
        }),
      )
      const made = outputOffset + resumed.length
      assert.ok(
        made >= outputBytes && made < outputBytes + 600,
        `stop point at ${streamBytes}: ${made} made, ${outputBytes} promised`,
      )
    }
  }
}

const output = sample(1_200_000, 1)
const compressors: [string, (bytes: Buffer) => Buffer][] = [
  ['level 1', (bytes) => gzipSync(bytes, { level: 1 })],
  ['level 6', (bytes) => gzipSync(bytes)],
  ['level 9', (bytes) => gzipSync(bytes, { level: 9 })],
  ['stored blocks', (bytes) => gzipSync(bytes, { level: 0 })],
  ['fixed codes', (bytes) => gzipSync(bytes, { strategy: constants.Z_FIXED })],
  ['small blocks', (bytes) => gzipSync(bytes, { memLevel: 1 })],
  [
    'several members',
    (bytes) =>
      Buffer.concat([
        gzipSync(bytes.subarray(0, 500_000)),
        gzipSync(Buffer.alloc(0)),
        gzipSync(bytes.subarray(500_000, 500_100)),
        gzipSync(bytes.subarray(500_100)),
      ]),
  ],
  ['zeros behind the end', (bytes) => Buffer.concat([gzipSync(bytes), Buffer.alloc(500)])],
  [
    'gzip(1), with a name',
    (bytes) =>
      execFileSync('sh', ['-c', 'cd "$(mktemp -d)" && cat > name && gzip --name name && cat name.gz && rm -r "$PWD"'], {
        input: bytes,
        maxBuffer: 2 ** 28,
      }),
  ],
]
for (const [name, compress] of compressors) {
  test(`every block of a gzip of ${name} is found, and decoding resumes there`, async () => {
    const bytes = compress(output)
    assert.ok(gunzipSync(bytes).equals(output))
    const { starts } = scan(bytes, 65_536)
    if (name === 'small blocks')
      assert.equal(new Set(starts.map(({ bitOffset }) => bitOffset % 8)).size, 8, 'blocks begin at all bits of a byte')
    await assertResumes(bytes, output, starts)
    await assertSparse(bytes, output)
  })
}

test('the blocks found do not depend on the pieces in which the stream comes', () => {
  const bytes = gzipSync(output.subarray(0, 400_000), { memLevel: 1 })
  const whole = scan(bytes, bytes.length, (index) => index % 2 === 0)
  assert.ok(whole.starts.length > 20)
  for (const pieceBytes of [1, 7, 600, 4096])
    assert.deepEqual(
      scan(bytes, pieceBytes, (index) => index % 2 === 0),
      whole,
    )
})

test('the window is the output that a block can refer to: nothing at the start of a member, 32 KiB at most', () => {
  const bytes = Buffer.concat([
    gzipSync(output.subarray(0, 500_000), { memLevel: 2 }),
    gzipSync(output.subarray(500_000, 600_000), { memLevel: 1 }),
  ])
  const { starts } = scan(bytes, 10_000)
  assert.equal(starts[0]?.windowBytes, 0)
  assert.ok(starts.some(({ outputOffset, windowBytes }) => outputOffset === 500_000 && windowBytes === 0))
  assert.ok(starts.every(({ windowBytes }) => windowBytes <= maxWindowBytes))
})

test('the scanner finds a damaged or short stream invalid, or scans it to its end', () => {
  const bytes = gzipSync(output.subarray(0, 60_000))
  for (let seed = 1; seed <= 300; seed++) {
    const random = createRandom(seed)
    const damaged = Buffer.from(seed % 3 === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes)
    for (let i = random.below(4); i >= 0 && damaged.length > 0; i--)
      damaged[random.below(damaged.length)]! ^= 1 << random.below(8)
    try {
      scan(damaged, 1 + random.below(5000))
    } catch (error) {
      assert.ok(isP2pfsError(error, 'invalid'), `seed ${seed}: ${String(error)}`)
    }
  }
})

test('the scanner follows bare deflate to its end, and hands back the bytes behind it', () => {
  const raw = deflateRawSync(output.subarray(0, 100_000))
  const scanner = new DeflateScanner(
    { block: () => false, needed: () => undefined, stopPoint: () => undefined },
    { firstStopBytes: 1, stopDistanceBytes: 1 },
  )
  const beyond = scanner.push(Buffer.concat([raw, Buffer.from('beyond')]))
  assert.equal(Buffer.from(beyond!).toString(), 'beyond')
  assert.equal(scanner.outputOffset, 100_000)
})
