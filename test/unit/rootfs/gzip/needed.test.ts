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

/** The needs of the blocks from output offset `from` on: of as many as the scanner finds out. */
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
      stopPoint: () => undefined,
    },
    { firstStopBytes: 16, stopDistanceBytes: 16 },
  )
  for (let at = 0; at < stream.length; at += pieceBytes) scanner.push(stream.subarray(at, at + pieceBytes))
  return asked.map(({ needed, ...start }) => ({ ...start, needed: needed! }))
}

const places = (needed: Uint8Array): number[] =>
  [...needed.keys()].filter((index) => needed[index] === neededByte).map((index) => index - maxWindowBytes)

/** Decodes from the block on; all bytes of the window that are not needed are spoilt. */
async function resume(stream: Buffer, output: Buffer, { bitOffset, outputOffset, needed }: Asked): Promise<Buffer> {
  const windowBytes = Math.min(outputOffset, maxWindowBytes)
  const window = Buffer.from(output.subarray(outputOffset - windowBytes, outputOffset))
  for (const index of window.keys()) if (needed[maxWindowBytes - windowBytes + index] === 0) window[index]! ^= 0x55
  const pieces: Buffer[] = []
  for await (const piece of resumeGzip(stream.subarray(bitOffset >> 3), { bit: bitOffset & 7, window }))
    pieces.push(piece)
  return Buffer.concat(pieces)
}

test('a match at the greatest distance needs the first byte of the window, and only bytes that it copies', async () => {
  const random = createRandom(3)
  const maker = new DeflateMaker()
  for (let i = 0; i < 40_000; i++) maker.literal(random.below(256))
  maker.endBlock().match(5, 32_768).literal(7).match(4, 32_768).endBlock()
  const stream = maker.finish()
  const [found] = neededOf(stream, 1)
  assert.deepEqual(
    places(found!.needed),
    [0, 1, 2, 3, 4, 6, 7, 8, 9].map((index) => index - maxWindowBytes),
  )
  const output = Buffer.from(maker.output)
  assert.deepEqual(inflateRawSync(stream), output)
  assert.deepEqual(await resume(stream, output, found!), output.subarray(40_000))
})

test('a block amid overlapping copies needs the bytes that they repeat, and nothing for copies of copies', async () => {
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

test('matches beyond 32 KiB of a block need nothing of the output before it', () => {
  const maker = new DeflateMaker()
  for (let i = 0; i < 50; i++) maker.literal(i)
  maker.endBlock()
  for (let i = 0; i < 32_767; i++) maker.literal(9)
  maker.match(3, 32_768).match(10, 32_768).endBlock()
  const [found] = neededOf(maker.finish(), 1)
  assert.deepEqual(places(found!.needed), [-1])
})

test('hand-made streams of all distances resume at every block with the needed bytes alone', async () => {
  const bits = new Set<number>()
  for (let seed = 1; seed <= 5; seed++) {
    const random = createRandom(seed)
    const maker = randomDeflate(random, 150_000)
    const stream = maker.finish()
    const output = Buffer.from(maker.output)
    assert.deepEqual(inflateRawSync(stream), output)
    for (let round = 0; round < 5; round++) {
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

test('a stop point tells how much the bytes before it make, to the byte', () => {
  for (let seed = 1; seed <= 3; seed++) {
    const random = createRandom(seed)
    const maker = randomDeflate(random, 60_000)
    const stream = maker.finish()
    const stopPoints: [number, number][] = []
    const scanner = new DeflateScanner(
      { block: () => false, needed: () => undefined, stopPoint: (...point) => stopPoints.push(point) },
      { firstStopBytes: 5, stopDistanceBytes: 16 },
    )
    for (let at = 0; at < stream.length; at += 999) scanner.push(stream.subarray(at, at + 999))
    assert.ok(stopPoints.length > stream.length / 16 - 2)
    for (const [streamBytes, outputBytes] of stopPoints.filter(() => random.below(10) === 0)) {
      assert.equal(
        inflateRawSync(stream.subarray(0, streamBytes), { finishFlush: constants.Z_SYNC_FLUSH }).length,
        outputBytes,
        `seed ${seed}, stop point at ${streamBytes}`,
      )
    }
  }
})
