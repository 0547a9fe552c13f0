import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { PowerLossCheck } from '../../../node/store/power-loss-check.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'
import { reserve } from '../../support/stores.ts'
import type { Filesystem } from './filesystems.ts'
import { LossyDisk, type PowerCut } from './lossy-disk.ts'
import { chunkFilesBelow, nobody } from './store-under-test.ts'

/** The store is at work this long at most before the power is cut (ms). */
const maxWorkMs = 2_500
export interface PowerLossRound {
  seed: number
  mountedWith: string
  cut: PowerCut
  /** Chunk files that are there afterwards, and those of them that are not what their names say. */
  files: number
  damaged: number
  /** Chunks that the store had in doubt when it was opened. */
  doubtful: number
  /** Chunks that had been reported as durable. */
  promised: number
  /** Everything that must not be; none for a store that keeps its promises. */
  findings: string[]
}

/**
 * Runs a store on a disk whose power is cut at a random instant, again and again; each round goes on with what the one
 * before has left.
 * @param directory an empty one; it must be unmounted by nobody else
 */
export async function* losePower(
  directory: string,
  { filesystem, rounds, seed }: { filesystem: Filesystem; rounds: number; seed: number },
): AsyncGenerator<PowerLossRound> {
  const random = createRandom(seed)
  const disk = await LossyDisk.make(directory, filesystem)
  const promised = new Set<Digest>()
  for (let round = 0; round < rounds; round++)
    yield await loseOnce(disk, filesystem, random.below(2 ** 31), round, promised)
}

async function loseOnce(
  disk: LossyDisk,
  filesystem: Filesystem,
  seed: number,
  round: number,
  promised: Set<Digest>,
): Promise<PowerLossRound> {
  const random = createRandom(seed)
  const mountedWith = filesystem.mountOptions[random.below(filesystem.mountOptions.length)]!
  const findings: string[] = []
  const chunks = join(disk.mounted, 'chunks')
  const cut = await disk.losePower({ seed, mountedWith }, async (cutPower) => {
    const work = { directory: chunks, bootId: `boot-${round}`, seed, promised, findings }
    return await workUntilPowerLoss(work, cutPower)
  })
  return await disk.boot(mountedWith, async () => {
    mkdirSync(chunks, { recursive: true })
    const files = chunkFilesBelow(chunks)
    const checked = await check(chunks, `boot-${round + 1}`, { files, promised, findings })
    return {
      seed,
      mountedWith,
      cut,
      files: files.size,
      damaged: [...files.values()].filter((isRight) => !isRight).length,
      doubtful: checked.doubtful,
      promised: promised.size,
      findings,
    }
  })
}

interface StoreWork {
  directory: string
  bootId: string
  seed: number
  promised: Set<Digest>
  findings: string[]
}

/** @returns what became of the writes that were not synced */
async function workUntilPowerLoss(
  { directory, bootId, seed, promised, findings }: StoreWork,
  cutPower: () => Promise<PowerCut>,
): Promise<PowerCut> {
  const program = fileURLToPath(new URL('store-main.ts', import.meta.url))
  const store = spawn(process.execPath, [program, directory, bootId, `${seed}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const closed = once(store, 'close')
  let isPowered = true
  const facts = createInterface(store.stdout)
  facts.on('line', (line) => {
    const [kind, ...digests] = line.split(' ')
    if (kind === 'wrong') findings.push(line)
    // Whether it is gone already, nobody can say once there is no power.
    if (kind === 'discarded') promised.delete(digests[0] as Digest)
    if (kind === 'durable' && isPowered) for (const digest of digests) if (digest !== '') promised.add(digest as Digest)
  })
  await Promise.race([once(facts, 'line'), closed])
  await Promise.race([sleep(createRandom(seed + 1).below(maxWorkMs)), closed])
  isPowered = false
  const cut = await cutPower()
  if (store.exitCode !== null) findings.push('the store ended by itself')
  store.kill('SIGKILL')
  await closed
  return cut
}

/** Opens the store as after a boot, and says what is wrong with it. */
async function check(
  directory: string,
  bootId: string,
  { files, promised, findings }: { files: ReadonlyMap<Digest, boolean>; promised: Set<Digest>; findings: string[] },
): Promise<{ doubtful: number }> {
  const chunks = await ChunkStore.open({ log: silentLog, reserve }, { directory, bootId })
  const inventory = new Inventory({ chunks, region: nobody })
  if (inventory.count > 0) findings.push('chunks count that nobody has looked at')
  inventory.examine(inventory.doubtful())
  let doubtful = 0
  for (const digest of inventory.doubtful()) {
    doubtful++
    if (inventory.has(digest)) findings.push(`${digest} is in doubt and counts as here`)
  }
  for (const [digest, isRight] of files)
    if (!isRight && inventory.has(digest)) findings.push(`${digest} is damaged and counts as here`)
  const power = new PowerLossCheck({ inventory, log: silentLog })
  power.start()
  await power.done()
  for (const [digest, isRight] of chunkFilesBelow(directory)) {
    if (!isRight) findings.push(`${digest} is damaged and was not discarded`)
    if (!inventory.has(digest)) findings.push(`${digest} is there and does not count`)
  }
  for (const digest of promised)
    // It is a finding once.
    if (!inventory.has(digest) && promised.delete(digest))
      findings.push(`${digest} was reported as durable and is lost`)
  for (const digest of inventory.digests())
    if ((await inventory.get(digest)) === undefined) findings.push(`${digest} counts as here and is not`)
  await chunks[Symbol.asyncDispose]()
  return { doubtful }
}
