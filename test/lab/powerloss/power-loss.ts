import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, statSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { run } from '../../../netlab/hosts/process.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { PowerLossCheck } from '../../../node/store/power-loss-check.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'
import { reserve } from '../../support/stores.ts'
import { chunkFilesBelow, nobody } from './store-under-test.ts'

/** Of the disk (MiB). */
const diskMiB = 192
/** The store is at work this long at most before the power is cut (ms). */
const maxWorkMs = 2_500
/** They commit often, so that names get to the disk long before the bytes do. */
const mountOptions = ['commit=1', 'commit=1,data=writeback', 'commit=1,data=journal', 'commit=1,nodelalloc']

export interface PowerLossRound {
  seed: number
  mountedWith: string
  /** Writes to the disk since its last sync, and what became of them. */
  cut: { writes: number; keptBytes: number; lostBytes: number }
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
 * Runs a store on a disk whose power is cut at a random instant, again and again; each round goes on with what the one before
 * has left.
 * @param directory an empty one; it must be unmounted by nobody else
 */
export async function* losePower(
  directory: string,
  { rounds, seed }: { rounds: number; seed: number },
): AsyncGenerator<PowerLossRound> {
  const random = createRandom(seed)
  const image = join(directory, 'image')
  await run('truncate', ['-s', `${diskMiB}M`, image])
  await run('mkfs.ext4', ['-q', '-O', '^metadata_csum_seed', '-E', 'lazy_itable_init=0,lazy_journal_init=0', image])
  for (const name of ['disk', 'store']) mkdirSync(join(directory, name), { recursive: true })
  const promised = new Set<Digest>()
  for (let round = 0; round < rounds; round++) yield await loseOnce(directory, random.below(2 ** 31), round, promised)
}

async function loseOnce(
  directory: string,
  seed: number,
  round: number,
  promised: Set<Digest>,
): Promise<PowerLossRound> {
  const random = createRandom(seed)
  const mountedWith = mountOptions[random.below(mountOptions.length)]!
  const findings: string[] = []
  const cut = await workUntilPowerLoss(directory, { seed, round, mountedWith, promised, findings })
  await rename(join(directory, 'left'), join(directory, 'image'))

  // The host has booted.
  const mounted = join(directory, 'store')
  await run('mount', ['-o', `loop,${mountedWith}`, join(directory, 'image'), mounted])
  try {
    const chunks = join(mounted, 'chunks')
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
  } finally {
    await unmount(mounted)
  }
}

/** @returns what became of the writes that were not synced */
async function workUntilPowerLoss(
  directory: string,
  {
    seed,
    round,
    mountedWith,
    promised,
    findings,
  }: { seed: number; round: number; mountedWith: string; promised: Set<Digest>; findings: string[] },
): Promise<PowerLossRound['cut']> {
  const random = createRandom(seed + 1)
  const [disk, mounted] = [join(directory, 'disk'), join(directory, 'store')]
  const program = fileURLToPath(new URL('lossy-disk-main.ts', import.meta.url))
  const lossy = spawn(process.execPath, [program, join(directory, 'image'), disk, join(directory, 'left'), `${seed}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const diskSays = createInterface(lossy.stdout)[Symbol.asyncIterator]()
  await diskSays.next()
  try {
    await run('mount', ['-o', `loop,${mountedWith}`, join(disk, 'disk'), mounted])
    try {
      const store = spawn(
        process.execPath,
        [fileURLToPath(new URL('store-main.ts', import.meta.url)), join(mounted, 'chunks'), `boot-${round}`, `${seed}`],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      const closed = once(store, 'close')
      let isPowered = true
      const facts = createInterface(store.stdout)
      facts.on('line', (line) => {
        const [kind, ...digests] = line.split(' ')
        if (kind === 'wrong') findings.push(line)
        // Whether it is gone already, nobody can say once there is no power.
        if (kind === 'discarded') promised.delete(digests[0] as Digest)
        if (kind === 'durable' && isPowered)
          for (const digest of digests) if (digest !== '') promised.add(digest as Digest)
      })
      await Promise.race([once(facts, 'line'), closed])
      await Promise.race([sleep(random.below(maxWorkMs)), closed])
      isPowered = false
      // It does not exist: the disk takes the question for the cut.
      statSync(join(disk, 'power-loss'), { throwIfNoEntry: false })
      const { value } = await diskSays.next()
      if (store.exitCode !== null) findings.push('the store ended by itself')
      store.kill('SIGKILL')
      await closed
      // The disk has ended.
      if (value === undefined) throw new Error('the disk lost its power by itself')
      return JSON.parse(value) as PowerLossRound['cut']
    } finally {
      await unmount(mounted)
    }
  } finally {
    await unmount(disk)
    await once(lossy, 'exit')
  }
}

/** Opens the store as after a boot, and says what is wrong with it. */
async function check(
  directory: string,
  bootId: string,
  { files, promised, findings }: { files: ReadonlyMap<Digest, boolean>; promised: Set<Digest>; findings: string[] },
): Promise<{ doubtful: number }> {
  const chunks = await ChunkStore.open({ log: silentLog, reserve }, { directory, bootId })
  const inventory = new Inventory({ chunks, region: nobody })
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

/** The store's last sync may be under way in a process of its own. */
async function unmount(directory: string): Promise<void> {
  for (let attempt = 1; ; attempt++)
    try {
      return void (await run('umount', [directory]))
    } catch (error) {
      if (attempt === 50) throw error
      await sleep(100)
    }
}
