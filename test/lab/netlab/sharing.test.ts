import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatSharing, measureSharing } from '../../../netlab/bench/sharing.ts'
import { sharingImages } from '../../../netlab/images/sharing-images.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { LayerIndexer } from '../../../node/rootfs/layer-indexer.ts'
import { createRandom } from '../../support/random.ts'

type Chunks = ReadonlyMap<string, number>

const seed = 20_240_601
const random = createRandom(seed)
const files = Array.from({ length: 1500 }, () => randomFile())
const before = await chunksOf(files)

/** A change may end or begin a pack, so that its neighbours are cut anew. */
const maxChunksOfOneChange = 4
const changes = 8

test('one file that is changed, added or removed costs a few chunks, wherever it is', async () => {
  for (let i = 0; i < changes; i++) {
    const index = random.below(files.length)
    const edits = { changed: [randomFile()], added: [files[index]!, randomFile()], removed: [] }
    for (const [edit, instead] of Object.entries(edits)) {
      const { count } = newIn(await chunksOf(files.toSpliced(index, 1, ...instead)), before)
      assert.ok(count <= maxChunksOfOneChange, `file ${index} ${edit}: ${count} new chunks, seed ${seed}`)
    }
  }
})

test('a change in the middle of a large file costs one chunk', async () => {
  const large = random.bytes(5 << 20)
  const old = await chunksOf([large])
  large[3 << 20]! ^= 1
  assert.equal(newIn(await chunksOf([large]), old).count, 1)
})

test('an upgrade of a tenth of the packages shares far more than half', async () => {
  const packageFiles = 50
  const upgraded = files.map((content, i) => (Math.floor(i / packageFiles) % 10 === 3 ? randomFile() : content))
  const changedBytes = upgraded
    .filter((content, i) => content !== files[i])
    .reduce((sum, { length }) => sum + length, 0)
  const { bytes, wholeBytes } = newIn(await chunksOf(upgraded), before)
  assert.ok(bytes < 0.2 * wholeBytes, `${bytes} of ${wholeBytes} bytes are new, ${changedBytes} changed, seed ${seed}`)
})

/**
 * The cost of an upgrade, with neighbours and metadata, in proportion to the bytes of changed files. The figure is 1.2.
 */
const maxCostOfUpgrade = 1.4
/** The share of an image that is new if a file of a few KB changes; most of it is metadata. The figure is 0.5 %. */
const maxShareOfOneFile = 0.01

test('versions of a real system share far more than half, and a host fetches only the changes', async (context) => {
  const results = await measureSharing(await sharingImages())
  for (const line of formatSharing(results).split('\n')) context.diagnostic(line)
  const byName = new Map(results.map((result) => [result.image, result]))
  const oneFile = byName.get('one-file')!
  assert.ok(oneFile.newBytes < maxShareOfOneFile * oneFile.sizeBytes, `one file: ${oneFile.newBytes} bytes`)
  for (const name of ['upgraded-base', 'upgraded', 'patched']) {
    const { newBytes, changedBytes, sizeBytes } = byName.get(name)!
    assert.ok(newBytes < 0.4 * sizeBytes, `${name}: ${newBytes} of ${sizeBytes} bytes are new`)
    assert.ok(newBytes < maxCostOfUpgrade * changedBytes, `${name}: ${newBytes} bytes are new, ${changedBytes} changed`)
  }
})

/** A file with a size as in a real system: most have a few KB, some have hundreds. */
function randomFile(): Buffer {
  return random.bytes(Math.ceil(2 ** (6 + 11 * random.next() ** 2)))
}

async function chunksOf(contents: readonly Buffer[]): Promise<Chunks> {
  const chunks = new Map<string, number>()
  const indexer = new LayerIndexer({
    put: async (digest, bytes) => {
      chunks.set(digest, bytes.length)
    },
  })
  await indexer.push(writeTar(contents.map((content, i) => ({ path: `file-${i}`, type: 'file', content }))))
  await indexer.finish()
  return chunks
}

function newIn(chunks: Chunks, old: Chunks): { count: number; bytes: number; wholeBytes: number } {
  const sum = (lengths: readonly number[]): number => lengths.reduce((total, length) => total + length, 0)
  const added = [...chunks].filter(([digest]) => !old.has(digest)).map(([, length]) => length)
  return { count: added.length, bytes: sum(added), wholeBytes: sum([...chunks.values()]) }
}
