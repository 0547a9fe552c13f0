import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'
import { reserve } from '../../support/stores.ts'
import { chunkFilesBelow } from './store-under-test.ts'

/** The store is at work this long at most before it is killed (ms). */
const maxWorkMs = 120

export interface ProcessDeath {
  seed: number
  files: number
  /** Chunks that had been reported as kept. */
  kept: number
  /** Everything that must not be. */
  findings: string[]
}

/**
 * Kills a store at work, again and again; each goes on with what the one before has left.
 * @param directory an empty one
 */
export async function* killStores(
  directory: string,
  { kills, seed }: { kills: number; seed: number },
): AsyncGenerator<ProcessDeath> {
  const random = createRandom(seed)
  const kept = new Set<Digest>()
  for (let kill = 0; kill < kills; kill++) yield await killOnce(directory, random.below(2 ** 31), kept)
}

async function killOnce(directory: string, seed: number, kept: Set<Digest>): Promise<ProcessDeath> {
  const findings: string[] = []
  const program = fileURLToPath(new URL('store-main.ts', import.meta.url))
  const store = spawn(process.execPath, [program, directory, 'boot', `${seed}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const closed = once(store, 'close')
  const facts = createInterface(store.stdout)
  facts.on('line', (line) => {
    const [kind, digest] = line.split(' ')
    if (kind === 'kept') kept.add(digest as Digest)
    if (kind === 'discarded') kept.delete(digest as Digest)
    if (kind === 'wrong') findings.push(line)
  })
  await Promise.race([once(facts, 'line'), closed])
  await Promise.race([sleep(createRandom(seed).below(maxWorkMs)), closed])
  if (store.exitCode !== null) findings.push('the store ended by itself')
  store.kill('SIGKILL')
  await closed

  await using chunks = await ChunkStore.open({ log: silentLog, reserve }, { directory, bootId: 'boot' })
  const files = chunkFilesBelow(directory)
  for (const digest of chunks.doubtful()) findings.push(`${digest} is in doubt`)
  for (const [digest, isRight] of files) {
    if (!isRight) findings.push(`${digest} is damaged`)
    if (!chunks.has(digest)) findings.push(`${digest} is there and does not count`)
  }
  if (chunks.count !== files.size) findings.push(`${chunks.count} chunks count, of ${files.size} files`)
  for (const digest of kept)
    if (!chunks.has(digest) && kept.delete(digest)) findings.push(`${digest} was reported as kept and is lost`)
  return { seed, files: files.size, kept: kept.size, findings }
}
