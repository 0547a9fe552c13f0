// Puts chunks as fast as they are taken, while a thread reads 4 KiB of those that have come, cached and past the cache.
// argv: a directory of the disk to be measured, the number of chunks, and the file of the chunk store (that of another
// checkout, to compare), and the size of its groups (MiB).
import { closeSync, constants, mkdtempSync, openSync, readdirSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { once } from 'node:events'
import { pathToFileURL } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { silentLog } from '../../node/base/log.ts'
import { digestOf } from '../../protocol/digest.ts'
import type { ChunkStore } from '../../node/store/chunk-store.ts'
import { createRandom } from '../support/random.ts'
import { reserve } from '../support/stores.ts'

type ReadKind = 'cached' | 'direct'

/** The part of WebAssembly that is used here; types for Node do not declare it. */
declare const WebAssembly: { Memory: new (descriptor: { initial: number }) => { buffer: ArrayBuffer } }

const chunkBytes = 256 * 1024
/** Puts under way at once, as many as the receiver of a fast link has. */
const putsAtOnce = 16
/** Between two reads (ms). */
const readEveryMs = 2

/** Files that were there, and on the disk, before the puts began. */
const oldFiles = 256

/**
 * Reads until it is told to end, and reports how long each read took (ms): of new chunks cached, of old files past the
 * cache.
 */
function readAlong({ directory, old }: { directory: string; old: string }): void {
  const random = createRandom(1)
  const took: Record<ReadKind, number[]> = { cached: [], direct: [] }
  // Direct reads need aligned memory, which WebAssembly has.
  const aligned = new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer, 0, 4096)
  let [names, prefix, reads]: [string[], string, number] = [[], directory, 0]
  const read = (kind: ReadKind, path: string): void => {
    const start = performance.now()
    const file = openSync(path, constants.O_RDONLY | (kind === 'direct' ? constants.O_DIRECT : 0))
    readSync(file, aligned, 0, 4096, random.below(64) * 4096)
    took[kind].push(performance.now() - start)
    closeSync(file)
  }
  const timer = setInterval(() => {
    if (reads++ % 20 === 0) {
      prefix = join(directory, random.below(256).toString(16).padStart(2, '0'))
      names = readdirSync(prefix)
    }
    const name = names[random.below(names.length)]
    if (name !== undefined) read('cached', join(prefix, name))
    read('direct', join(old, `${random.below(oldFiles)}`))
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

async function measure(parent: string, count: number, storeFile: string, groupMiB: number): Promise<void> {
  const { ChunkStore: Store } = (await import(pathToFileURL(resolve(storeFile)).href)) as {
    ChunkStore: typeof ChunkStore
  }
  const directory = mkdtempSync(join(parent, 'store-puts-'))
  const groupBytes = groupMiB * 1024 * 1024
  const store = await Store.open({ log: silentLog, reserve }, { directory, groupBytes })
  const old = mkdtempSync(join(parent, 'store-puts-old-'))
  for (let i = 0; i < oldFiles; i++)
    writeFileSync(join(old, `${i}`), createRandom(i).bytes(chunkBytes), { flush: true })
  const reader = new Worker(new URL(import.meta.url), { workerData: { directory, old } })
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
  const [took] = (await once(reader, 'message')) as [Record<ReadKind, number[]>]
  const gigabytes = (count * chunkBytes) / 1e9
  process.stdout.write(
    `${JSON.stringify({
      store: storeFile,
      'group MiB': groupMiB,
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
  for (const path of [directory, old]) rmSync(path, { recursive: true, force: true })
}

if (isMainThread) {
  const [, , parent = '/var/tmp', count = '4096', storeFile = 'node/store/chunk-store.ts', groupMiB = '512'] =
    process.argv
  await measure(parent, Number(count), storeFile, Number(groupMiB))
} else readAlong(workerData as Parameters<typeof readAlong>[0])
