import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { test, type TestContext } from 'node:test'
import { silentLog, type Log } from '../../../../node/base/log.ts'
import { WriteEpochs } from '../../../../node/base/write-epochs.ts'
import { bulkNiceness } from '../../../../node/peers/bulk/bulk-limits.ts'
import { BulkThread } from '../../../../node/peers/bulk/bulk-thread.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'
import { makeChunkDirectory, until } from '../test-peer.ts'

interface Echo {
  message: string
  workerData: unknown
}

function startThread(t: TestContext): {
  thread: BulkThread<string, Echo>
  heard: Echo[]
  lost: { count: number }
  errors: string[]
} {
  const heard: Echo[] = []
  const lost = { count: 0 }
  const errors: string[] = []
  const log: Log = { ...silentLog, error: (message) => void errors.push(message) }
  const thread = new BulkThread<string, Echo>(
    { file: new URL('./echo-thread.ts', import.meta.url), log },
    { onMessage: (message) => heard.push(message), onLost: () => lost.count++ },
  )
  t.after(async () => await thread.stop())
  return { thread, heard, lost, errors }
}

test('a thread that crashes is noticed, logged, and can be started anew', async (t) => {
  const { thread, heard, lost, errors } = startThread(t)
  thread.start('first')
  thread.start('ignored: it runs')
  thread.post('hello')
  await until('it answers', () => heard.length === 1)
  assert.equal(heard[0]!.workerData, 'first')
  thread.post('crash')
  await until('it is lost', () => lost.count === 1)
  assert.equal(thread.isRunning, false)
  assert.equal(errors.length, 1)
  thread.post('nobody hears this')
  thread.start('second')
  thread.post('hello')
  await until('the new one answers', () => heard.length === 2)
  assert.deepEqual(heard[1]!.workerData, 'second')
})

test('a thread that was stopped is not started again, and nobody is told that it was lost', async (t) => {
  const { thread, lost } = startThread(t)
  thread.start('first')
  await thread.stop()
  await thread.stop()
  thread.start('second')
  assert.equal(thread.isRunning, false)
  assert.equal(lost.count, 0)
})

/** The nice value of each thread of this process: field 19 of proc(5)'s stat. */
function niceValues(): number[] {
  return readdirSync('/proc/self/task').map((thread) => {
    const stat = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16])
  })
}

test('the threads give way to others, and the rest of the process does not', async (t) => {
  const directory = join(temporaryDirectory(t), 'chunks')
  makeChunkDirectory(directory)
  const expected = getPriority() + bulkNiceness
  const count = (): number => niceValues().filter((nice) => nice === expected).length
  const before = count()
  const setups = {
    sender: { directory, mode: 'tls', listen: { hosts: ['127.0.0.1'], port: 0, orAny: false } },
    receiver: { writing: { directory, epochs: WriteEpochs.startingAt(1).shared }, mode: 'tls' },
  }
  for (const [name, workerData] of Object.entries(setups)) {
    const file = new URL(`../../../../node/peers/bulk/${name}-thread.ts`, import.meta.url)
    const worker = new Worker(file, { workerData })
    t.after(async () => await worker.terminate())
  }
  await until('both give way', () => count() === before + 2)
})
