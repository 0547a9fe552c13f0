// Puts chunks as fast as they are taken, while a thread reads 4 KiB of those that have come, cached and past the cache. argv: a
// directory of the disk to be measured, the number of chunks, and the file of the chunk store (that of another checkout, to
// compare).
import { constants, openSync, readdirSync, readSync, closeSync, mkdtempSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { once } from 'node:events'
import { pathToFileURL } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { silentLog } from '../../node/base/log.ts'
import { digestOf } from '../../protocol/digest.ts'
import type { ChunkStore } from '../../node/store/chunk-store.ts'
import { createRandom } from '../support/random.ts'
import { reserve } from '../support/stores.ts'

const chunkBytes = 256 * 1024
/** Puts under way at once, as many as the receiver of a fast link has. */
const putsAtOnce = 16
/** Between two reads (ms). */
const readEveryMs = 2

/** Reads until it is told to end, and reports how long each read took (ms). */
function readAlong(directory: string): void {
  const random = createRandom(1)
  const took: Record<'cached' | 'direct', number[]> = { cached: [], direct: [] }
  const target = new Uint8Array(new SharedArrayBuffer(8192))
  const aligned = new Uint8Array(target.buffer, 0, 4096)
  const timer = setInterval(() => {
    const prefix = join(directory, random.below(256).toString(16).padStart(2, '0'))
    const names = readdirSync(prefix)
    const name = names[random.below(names.length)]
    if (name === undefined) return
    for (const kind of ['cached', 'direct'] as const) {
      const start = performance.now()
      const file = openSync(join(prefix, name), constants.O_RDONLY | (kind === 'direct' ? constants.O_DIRECT : 0))
      try {
        readSync(file, aligned, 0, 4096, random.below(64) * 4096)
        took[kind].push(performance.now() - start)
      } catch {
        // The memory is not aligned by chance.
      }
      closeSync(file)
    }
  }, readEveryMs)
  parentPort!.once('message', () => {
    clearInterval(timer)
    parentPort!.postMessage(took)
  })
}

function quantile(values: readonly number[], share: number): string {
  const sorted = values.toSorted((a, b) => a - b)
  return (sorted[Math.floor(sorted.length * share)] ?? NaN).toFixed(2)
}

async function measure(parent: string, count: number, storeFile: string): Promise<void> {
  const { ChunkStore: Store } = (await import(pathToFileURL(resolve(storeFile)).href)) as {
    ChunkStore: typeof ChunkStore
  }
  const directory = mkdtempSync(join(parent, 'store-puts-'))
  const store = await Store.open({ log: silentLog, reserve }, { directory })
  const reader = new Worker(new URL(import.meta.url), { workerData: directory })
  await once(reader, 'online')
  const bytes = Array.from({ length: putsAtOnce }, (_, i) => createRandom(i).bytes(chunkBytes))
  let next = 0
  let hashed = 0
  const [start, before] = [performance.now(), process.cpuUsage()]
  await Promise.all(
    bytes.map(async (own) => {
      for (let i = next++; i < count; i = next++) {
        own.writeUInt32LE(i, 4)
        const started = performance.now()
        const digest = digestOf(own)
        hashed += performance.now() - started
        await store.put(digest, own)
      }
    }),
  )
  const put = performance.now() - start
  if ('flush' in store) await store.flush({ signal: new AbortController().signal })
  const durable = performance.now() - start
  const { user, system } = process.cpuUsage(before)
  reader.postMessage('end')
  const [took] = (await once(reader, 'message')) as [Record<'cached' | 'direct', number[]>]
  const gigabytes = (count * chunkBytes) / 1e9
  process.stdout.write(
    `${JSON.stringify({
      store: storeFile,
      'put MB/s': Math.round((gigabytes * 1e6) / put),
      'durable MB/s': Math.round((gigabytes * 1e6) / durable),
      'CPU s/GB': ((user + system) / 1e6 / gigabytes).toFixed(2),
      'of that hashing': (hashed / 1e3 / gigabytes).toFixed(2),
      'cached p50 p99 max ms': [0.5, 0.99, 1].map((share) => quantile(took.cached, Math.min(share, 0.99999))).join(' '),
      'direct p50 p99 max ms': [0.5, 0.99, 1].map((share) => quantile(took.direct, Math.min(share, 0.99999))).join(' '),
      reads: took.cached.length,
    })}\n`,
  )
  await reader.terminate()
  if (Symbol.asyncDispose in store) await store[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
}

if (isMainThread) {
  const [, , parent = '/var/tmp', count = '4096', storeFile = 'node/store/chunk-store.ts'] = process.argv
  await measure(parent, Number(count), storeFile)
} else readAlong(workerData as string)
