import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { silentLog } from '../../../node/base/log.ts'
import { MountedRootfs } from '../../../node/mount/mounted-rootfs.ts'
import { WaitingReads } from '../../../node/mount/waiting-reads.ts'
import { chunkBytes, chunkOf, FakeFetcher, rootfsOf } from './mount-fakes.ts'

const { signal } = new AbortController()
const chunkCount = 200
const { manifest, digest } = rootfsOf(...Array.from({ length: chunkCount }, (_, i) => i))

function mount(readDeadlineMs = 10_000): { mounted: MountedRootfs; fetcher: FakeFetcher } {
  const fetcher = new FakeFetcher()
  const waiting = new WaitingReads({ fetcher, imagesOf: () => [], log: silentLog })
  const mounted = new MountedRootfs({ fetcher, inventory: fetcher, waiting }, { readDeadlineMs }, manifest, digest)
  return { mounted, fetcher }
}

test('a read that misses fetches its chunk with the highest priority', async () => {
  const { mounted, fetcher } = mount()
  const reading = mounted.miss(7, { signal })
  assert.equal(mounted.waitingChunks, 1)
  assert.deepEqual(await reading, chunkOf(7))
  assert.equal(mounted.waitingChunks, 0)
  const [{ request, priority } = assert.fail()] = fetcher.asked
  assert.deepEqual(
    [request.digest, request.lengthBytes, request.index, priority],
    [digestOf(chunkOf(7)), chunkBytes, 6, 'demand'],
  )
  assert.deepEqual(mounted.arrivals().peer, { bytes: chunkBytes, chunks: 1 })
})

test('a read that failed by its deadline and is repeated at once fails sooner', async () => {
  const { mounted, fetcher } = mount(1500)
  fetcher.neverAnswers()
  const waitedMs = async (): Promise<number> => {
    const startedAt = performance.now()
    await assert.rejects(mounted.miss(7, { signal }), (error) => isP2pfsError(error, 'timeout'))
    return performance.now() - startedAt
  }
  const [first, second] = [await waitedMs(), await waitedMs()]
  assert.ok(first >= 1400 && second < 1400, `${first} ms, then ${second} ms`)
})

test('chunks are fetched ahead of a sequential reader', async () => {
  const { mounted, fetcher } = mount()
  for (let chunk = 0; chunk < 4; chunk++) await mounted.miss(chunk, { signal })
  assert.ok(fetcher.asked.some(({ priority }) => priority === 'ahead'))
})

test('chunks of a plan are fetched in its order, not guessed by read-ahead', async () => {
  const { mounted, fetcher } = mount()
  mounted.plan(new Set([0, 1, 2, 3]))
  for (let chunk = 0; chunk < 4; chunk++) await mounted.miss(chunk, { signal })
  assert.deepEqual(
    fetcher.asked.map(({ priority }) => priority),
    ['demand', 'demand', 'demand', 'demand'],
  )
})

test('a chunk file that is known to be right as it comes is not to be hashed by those who read it', () => {
  const { mounted, fetcher } = mount()
  const { table, index } = mounted.request(7)
  fetcher.arrived(table, index, 'peer', 1_234.5)
  fetcher.arrived(table, index + 1, 'registry', undefined)
  const checkedAtMs = new Float64Array(mounted.image.checkedAtMs)
  assert.deepEqual([...checkedAtMs.subarray(6, 10)], [0, 1_234.5, 0, 0])
  assert.deepEqual([mounted.arrivals().peer.chunks, mounted.arrivals().registry.chunks], [1, 1])
})

test('closing ends the reads that wait', async () => {
  const { mounted, fetcher } = mount()
  fetcher.neverAnswers()
  const reading = mounted.miss(3, { signal })
  mounted.close()
  await assert.rejects(reading, { code: 'closed' })
})
