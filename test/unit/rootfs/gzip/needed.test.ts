import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, inflateRawSync } from 'node:zlib'
import { DeflateScanner, maxWindowBytes, neededByte } from '../../../../node/rootfs/gzip/deflate-scanner.ts'
import { resumeGzip } from '../../../../node/rootfs/gzip/resume.ts'
import { createRandom } from '../../../support/random.ts'
import { DeflateMaker, randomDeflate } from './deflate-maker.ts'

interface Asked {
  bitOffset: number
  outputOffset: number
  needed: Uint8Array
}

/** What the blocks need: of every one from `from` on, as far as one may ask. */
function neededOf(stream: Buffer, from: number, pieceBytes = stream.length): Asked[] {
  const asked: { bitOffset: number; outputOffset: number; needed?: Uint8Array }[] = []
  const scanner = new DeflateScanner(
    {
      block: (bitOffset, outputOffset) => {
        if (outputOffset < from || outputOffset - (asked.at(-1)?.outputOffset ?? -Infinity) < maxWindowBytes)
          return false
        asked.push({ bitOffset, outputOffset })
        return true
      },
      needed: (needed) => {
        asked.at(-1)!.needed = needed
      },
      mark: () => undefined,
    },
    { firstMark: 16, markDistance: 16 },
  )
  for (let at = 0; at < stream.length; at += pieceBytes) scanner.push(stream.subarray(at, at + pieceBytes))
  return asked.map(({ needed, ...start }) => ({ ...start, needed: needed! }))
}

const places = (needed: Uint8Array): number[] =>
  [...needed.keys()].filter((at) => needed[at] === neededByte).map((at) => at - maxWindowBytes)

/** Decodes from there on with all that is not needed spoilt. */
async function resume(stream: Buffer, output: Buffer, { bitOffset, outputOffset, needed }: Asked): Promise<Buffer> {
  const windowBytes = Math.min(outputOffset, maxWindowBytes)
  const window = Buffer.from(output.subarray(outputOffset - windowBytes, outputOffset))
  for (const at of window.keys()) if (needed[maxWindowBytes - windowBytes + at] === 0) window[at]! ^= 0x55
  const pieces: Buffer[] = []
  for await (const piece of resumeGzip(stream.subarray(bitOffset >> 3), { bit: bitOffset & 7, window }))
    pieces.push(piece)
  return Buffer.concat(pieces)
}

test('a match that reaches back as far as can be needs the first byte of the window, and no more than it copies', async () => {
  const random = createRandom(3)
  const maker = new DeflateMaker()
  for (let i = 0; i < 40_000; i++) maker.literal(random.below(256))
  maker.endBlock().match(5, 32_768).literal(7).match(4, 32_768).endBlock()
  const stream = maker.finish()
  const [found] = neededOf(stream, 1)
  assert.deepEqual(
    places(found!.needed),
    [0, 1, 2, 3, 4, 6, 7, 8, 9].map((at) => at - maxWindowBytes),
  )
  const output = Buffer.from(maker.output)
  assert.deepEqual(inflateRawSync(stream), output)
  assert.deepEqual(await resume(stream, output, found!), output.subarray(40_000))
})

test('a block in the middle of overlapping copies needs what they repeat, once; copies of copies need nothing', async () => {
  const maker = new DeflateMaker()
  for (const byte of [1, 2, 3]) maker.literal(byte)
  for (let i = 0; i < 200; i++) maker.match(258, 3)
  maker.endBlock()
  for (let i = 0; i < 10; i++) maker.match(258, 3)
  maker.match(10, 2000).endBlock()
  const stream = maker.finish()
  const [found] = neededOf(stream, 1)
  assert.deepEqual(places(found!.needed), [-3, -2, -1])
  assert.deepEqual(
    await resume(stream, Buffer.from(maker.output), found!),
    Buffer.from(maker.output.slice(found!.outputOffset)),
  )
})

test('behind 32 KiB of a block nothing is needed of what is before it', () => {
  const maker = new DeflateMaker()
  for (let i = 0; i < 50; i++) maker.literal(i)
  maker.endBlock()
  for (let i = 0; i < 32_767; i++) maker.literal(9)
  maker.match(3, 32_768).match(10, 32_768).endBlock()
  const [found] = neededOf(maker.finish(), 1)
  assert.deepEqual(places(found!.needed), [-1])
})

test('hand-made streams of all distances resume at every block with what is needed alone', async () => {
  const bits = new Set<number>()
  for (let seed = 1; seed <= 12; seed++) {
    const random = createRandom(seed)
    const maker = randomDeflate(random, 150_000)
    const stream = maker.finish()
    const output = Buffer.from(maker.output)
    assert.deepEqual(inflateRawSync(stream), output)
    for (let round = 0; round < 6; round++) {
      for (const asked of neededOf(stream, random.below(60_000), 1 + random.below(20_000))) {
        bits.add(asked.bitOffset % 8)
        assert.ok(
          (await resume(stream, output, asked)).equals(output.subarray(asked.outputOffset)),
          `seed ${seed}, bit ${asked.bitOffset}`,
        )
      }
    }
  }
  assert.equal(bits.size, 8)
})

test('a mark is what the bytes before it make, to the byte', () => {
  for (let seed = 1; seed <= 3; seed++) {
    const random = createRandom(seed)
    const maker = randomDeflate(random, 60_000)
    const stream = maker.finish()
    const marks: [number, number][] = []
    const scanner = new DeflateScanner(
      { block: () => false, needed: () => undefined, mark: (...mark) => marks.push(mark) },
      { firstMark: 5, markDistance: 16 },
    )
    for (let at = 0; at < stream.length; at += 999) scanner.push(stream.subarray(at, at + 999))
    assert.ok(marks.length > stream.length / 16 - 2)
    for (const [streamBytes, outputBytes] of marks.filter(() => random.below(10) === 0)) {
      assert.equal(
        inflateRawSync(stream.subarray(0, streamBytes), { finishFlush: constants.Z_SYNC_FLUSH }).length,
        outputBytes,
        `seed ${seed}, mark at ${streamBytes}`,
      )
    }
  }
})
