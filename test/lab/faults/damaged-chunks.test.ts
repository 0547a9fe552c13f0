import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync, truncateSync, appendFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { dropPageCache, readSlowly } from '../lost-chunks.ts'
import { hash, startFaultyLab } from './fault-daemon.ts'

/** The files of the largest chunks of the image, which reads of its files need. */
function chunkFiles(state: string, whole: Buffer, count: number): string[] {
  const blocks = new Set(
    Array.from({ length: whole.length / 4096 }, (_, i) => hash(whole.subarray(i * 4096, (i + 1) * 4096))),
  )
  const directory = join(state, 'chunks')
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => /^[0-9a-f]{2}\/[0-9a-f]{64}$/.test(name))
    .map((name) => join(directory, name))
    .filter((path) => blocks.has(hash(readFileSync(path).subarray(0, 4096))))
    .toSorted((a, b) => statSync(b).size - statSync(a).size)
    .slice(0, count)
}

const damages: [string, (path: string) => void][] = [
  ['emptied', (path) => truncateSync(path, 0)],
  ['cut off', (path) => truncateSync(path, Math.floor(statSync(path).size / 2))],
  ['too long', (path) => appendFileSync(path, 'more')],
]

test('chunk files that were emptied, cut off or made longer are fetched again when they are read', async (t) => {
  const { daemon, rootfs, whole } = await startFaultyLab(t, 'odd')
  const files = chunkFiles(join(daemon.directory, 'state'), whole, 6)
  for (const [i, path] of files.entries()) damages[i % damages.length]![1](path)
  dropPageCache()
  assert.equal(hash(await readSlowly(rootfs, whole.length)), hash(whole))
  assert.doesNotMatch(daemon.log, /reply to the kernel failed/)
})

test('a read of a damaged chunk file that nobody can deliver fails by its deadline', async (t) => {
  const { daemon, registry, rootfs, whole } = await startFaultyLab(t, 'odd', {
    daemonOptions: ['--read-deadline', '2'],
  })
  await registry[Symbol.asyncDispose]()
  for (const path of chunkFiles(join(daemon.directory, 'state'), whole, 1000)) truncateSync(path, 100)
  dropPageCache()
  const startedAt = performance.now()
  await using file = await open(rootfs)
  const offset = Math.floor(whole.length / 2 / 4096) * 4096
  await assert.rejects(file.read(Buffer.alloc(4096), 0, 4096, offset), { code: 'EIO' })
  assert.ok(performance.now() - startedAt < 15_000)
})
