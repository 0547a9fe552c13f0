import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { WriteEpochs } from '../../../node/base/write-epochs.ts'

/** Begins and ends writes without pause. Its cell has the epoch that it writes in, or 0. */
const writer = `
  const { workerData: { shared, cell, cells, index, module } } = require('node:worker_threads')
  import(module).then(({ WriteEpochs }) => {
    const epochs = new WriteEpochs(shared, cell)
    const writing = new Int32Array(cells)
    for (let writes = 0; Atomics.load(writing, 0) === 0; writes++) {
      const epoch = epochs.begin()
      Atomics.store(writing, index, epoch)
      for (let i = 0; i < writes % 50; i++) Atomics.load(writing, index)
      Atomics.store(writing, index, 0)
      epochs.end(epoch)
    }
  })
`

test('in an epoch that is closed and quiet no thread writes any more', async () => {
  const epochs = WriteEpochs.startingAt(7)
  /** The first cell ends the writers. */
  const cells = new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT)
  const writing = new Int32Array(cells)
  const module = new URL('../../../node/base/write-epochs.ts', import.meta.url).href
  const workers = [1, 2].map(
    (index) =>
      new Worker(writer, {
        eval: true,
        // One of them may be killed.
        workerData: { shared: epochs.shared, cell: index === 1 ? epochs.giveCell() : undefined, cells, index, module },
      }),
  )
  while (![1, 2].every((index) => Atomics.load(writing, index) !== 0))
    await new Promise((resolve) => setImmediate(resolve))
  for (let round = 0; round < 20_000; round++) {
    const closed = epochs.close()
    assert.equal(closed, 7 + round)
    while (!epochs.isQuiet(closed)) if (round % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
    for (const index of [1, 2]) {
      const epoch = Atomics.load(writing, index)
      assert.ok(epoch === 0 || epoch > closed, `writes in ${epoch}, which was closed as ${closed}`)
    }
  }
  Atomics.store(writing, 0, 1)
  await Promise.all(workers.map(async (worker) => await once(worker, 'exit')))
})

test('the write of a thread that was killed is waited for until its cell is taken away', () => {
  const epochs = WriteEpochs.startingAt(3)
  const cell = epochs.giveCell()
  const thread = new WriteEpochs(epochs.shared, cell)
  const other = new WriteEpochs(epochs.shared, epochs.giveCell())
  thread.end(thread.begin())
  assert.equal(epochs.isQuiet(epochs.close()), true)
  thread.begin()
  const closed = epochs.close()
  other.begin()
  assert.equal(epochs.isQuiet(closed), false)
  epochs.takeCell(cell)
  assert.equal(epochs.isQuiet(closed), true)
  assert.equal(epochs.isQuiet(epochs.close()), false)
})
