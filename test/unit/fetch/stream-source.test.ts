import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { ChunkFileWriter } from '../../../node/base/chunk-file-writer.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { StreamSource } from '../../../node/fetch/stream-source.ts'
import type { SegmentStream } from '../../../node/layers/segment-streams.ts'
import { inStore, type Delivery } from '../../../node/model/chunk-request.ts'
import { requestOf } from '../../../node/model/rootfs-chunks.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { reserve } from '../../support/stores.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()
const contents = [1, 2, 3].map((n) => Buffer.alloc(4096, n))
const table = new ChunkTable(
  contents.map(({ length }) => length),
  Buffer.concat(contents.map((bytes) => digestToBytes(digestOf(bytes)))),
)

interface Lab {
  inventory: Inventory
  /** Indexes of chunks whose bytes have passed the main thread. */
  sent: number[]
  begin: () => void
  fetch: (index: number, options: { isUrgent: boolean }) => Promise<Delivery>
}

/** A source over a stream whose thread follows what it is told, chunk by chunk, when it has begun. */
async function lab(t: TestContext): Promise<Lab> {
  const nothing = (): void => undefined
  const region = { announce: nothing, announceChunks: nothing, withdrawChunks: nothing, forget: nothing }
  const chunks = await ChunkStore.open({ log: silentLog, reserve }, { directory: temporaryDirectory(t) })
  t.after(async () => await chunks[Symbol.asyncDispose]())
  const inventory = new Inventory({ chunks, region })
  const sent: number[] = []
  const begun = Promise.withResolvers<void>()
  const streamOf = async (): Promise<SegmentStream> => async (sink) => {
    await begun.promise
    await using files = sink.openFiles!()
    const writer = new ChunkFileWriter(files.writing!)
    for (const [index, bytes] of contents.entries()) {
      const digest = digestOf(bytes)
      const fate = await files.decide({ digest, lengthBytes: bytes.length })
      if (fate === 'send') {
        sent.push(index)
        await sink.put(digest, bytes)
      } else if (fate === 'write') {
        const changedAtMs = writer.write(digest, bytes)
        files.adopt([{ digest, lengthBytes: bytes.length, changedAtMs }])
      }
    }
  }
  const source = new StreamSource({ streams: { streamOf }, inventory, signal, log: silentLog })
  return {
    inventory,
    sent,
    begin: begun.resolve,
    fetch: async (index, { isUrgent }) =>
      await source.fetch(requestOf(table, index), { signal, urgency: new Urgency(isUrgent) }),
  }
}

test('of a stream, only what somebody waits for passes the main thread; the rest is in the store', async (t) => {
  const { inventory, sent, begin, fetch } = await lab(t)
  const [ahead, urgent] = [fetch(0, { isUrgent: false }), fetch(1, { isUrgent: true })]
  await new Promise((resolve) => setImmediate(resolve))
  begin()
  assert.equal(await ahead, inStore)
  assert.deepEqual(await urgent, contents[1])
  while (!inventory.has(table.digestAt(2))) await new Promise((resolve) => setImmediate(resolve))
  for (const [index, bytes] of contents.entries()) assert.deepEqual(await inventory.get(table.digestAt(index)), bytes)
  assert.deepEqual(sent, [1])
})

test('a chunk of a stream that was here already is not written again, and whoever waits for it hears of it', async (t) => {
  const { inventory, begin, fetch } = await lab(t)
  await inventory.put(table.digestAt(0), contents[0]!, 'peer')
  const ahead = fetch(0, { isUrgent: false })
  await new Promise((resolve) => setImmediate(resolve))
  begin()
  assert.equal(await ahead, inStore)
  assert.equal([...inventory.sourcesOf(table)][0]?.source, 'peer')
})
