import { readdir, open, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { dropAllCaches, dropPageCache } from '../hosts/page-cache.ts'
import type { ChaosHost } from './chaos-host.ts'
import type { Random } from './mount-actions.ts'
import { readDeadlineMs, type World } from './world.ts'

/** Chunk files that one action damages. */
const maxDamaged = 20

/** Kills or ends the daemon; its supervisor starts another. */
export function endDaemon(world: World, host: ChaosHost, signal: 'SIGKILL' | 'SIGTERM'): void {
  if (host.frozenPid !== undefined) return
  const pid = host.signalDaemon(signal)
  world.journal.action(host.name, `${signal} to the daemon ${pid ?? '(there is none)'}`)
}

/** Has the supervisor replace the daemon. */
export function replaceDaemon(world: World, host: ChaosHost): void {
  if (host.frozenPid !== undefined) return
  world.journal.action(host.name, 'SIGHUP to the supervisor')
  host.disturbedAt = performance.now()
  host.node.signalSupervisor('SIGHUP')
}

export function freezeDaemon(world: World, host: ChaosHost, random: Random): void {
  const ms = 300 + random.below(4000)
  if (host.frozenPid !== undefined) return
  host.frozenPid = host.signalDaemon('SIGSTOP')
  if (host.frozenPid === undefined) return
  world.journal.action(host.name, `freeze the daemon for ${ms} ms`)
  const end = host.outages.begin()
  world.undo.after(ms, async () => {
    host.thaw()
    end()
  })
}

/** Stops the supervisor the orderly way, or kills everything, and starts again. All mounts end. */
export async function restart(world: World, host: ChaosHost, { orderly }: { orderly: boolean }): Promise<void> {
  host.thaw()
  world.journal.action(host.name, orderly ? 'stop the supervisor, and start again' : 'kill all, and start again')
  host.disturbedAt = performance.now()
  for (const mount of host.mounts.values()) {
    mount.isChanging = true
    mount.generation++
  }
  host.mounts.clear()
  try {
    await (orderly ? host.node.stop() : host.node.killAll())
  } catch (error) {
    world.journal.found('operation-hangs', host.name, `stop: ${String(error)}`)
  }
  const left = host.kernelMounts().filter((path) => path !== host.stateDirectory)
  if (orderly && left.length > 0) world.journal.found('left-over', host.name, `after a stop: ${left.join(', ')}`)
  try {
    await host.startAgain()
  } catch (error) {
    world.journal.found('daemon-gone', host.name, `start: ${String(error)}`)
  }
}

/** Pulls the registry's cable, or freezes it. Now and then for longer than reads wait. */
export async function loseRegistry(world: World, random: Random, way: 'cut' | 'pause'): Promise<void> {
  const isLong = random.below(8) === 0
  const ms = isLong ? readDeadlineMs + 3000 : 300 + random.below(4000)
  if (world.registryOutages.isNow) return
  const { registry, journal, undo, registryOutages } = world
  journal.action('registry', `${way} for ${ms} ms`)
  const end = registryOutages.begin()
  if (way === 'cut') await registry.host.cut()
  else registry.pause()
  undo.after(ms, async () => {
    if (way === 'cut') await registry.host.restore()
    else registry.resume()
    end()
  })
}

/** Pulls the cable of a host. Its reads have neither peers nor the registry. */
export async function cutHost(world: World, host: ChaosHost, random: Random): Promise<void> {
  const ms = 300 + random.below(4000)
  if (world.registryOutages.isNow) return
  world.journal.action(host.name, `cut for ${ms} ms`)
  const end = world.registryOutages.begin()
  await host.host.cut()
  world.undo.after(ms, async () => {
    await host.host.restore()
    end()
  })
}

/** Flips a bit in some chunk files, or cuts them short. */
export async function damageChunks(
  world: World,
  host: ChaosHost,
  random: Random,
  way: 'flip' | 'truncate',
): Promise<void> {
  const count = 1 + random.below(maxDamaged)
  const chunks = join(host.stateDirectory, 'chunks')
  let damaged = 0
  for (let i = 0; i < count; i++) {
    const folder = join(chunks, random.below(256).toString(16).padStart(2, '0'))
    const [whichFile, whichByte, whichBit] = [random.next(), random.next(), random.below(8)]
    const names = (await readdir(folder).catch((): string[] => [])).toSorted((x, y) => (x < y ? -1 : 1))
    const name = names[Math.floor(whichFile * names.length)]
    if (name === undefined) continue
    const path = join(folder, name)
    try {
      const { size } = await stat(path)
      const position = Math.floor(whichByte * size)
      if (way === 'truncate') await truncate(path, position)
      else await flipBit(path, position, whichBit)
      damaged++
    } catch {
      // The daemon has removed it.
    }
  }
  world.journal.action(host.name, `${way} ${damaged} chunk files`)
  await dropPageCache()
}

async function flipBit(path: string, position: number, bit: number): Promise<void> {
  await using file = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  if ((await file.read(byte, 0, 1, position)).bytesRead === 0) return
  byte[0]! ^= 1 << bit
  await file.write(byte, 0, 1, position)
}

/** Fills the disk of a host that has one of its own, for a while. */
export async function fillDisk(world: World, host: ChaosHost, random: Random): Promise<void> {
  const ms = 1000 + random.below(6000)
  if (host.isFull) return
  world.journal.action(host.name, `fill the disk for ${ms} ms`)
  host.isFull = true
  await host.fillDisk()
  world.undo.after(ms, async () => {
    await host.freeDisk()
    host.isFull = false
    host.disturbedAt = performance.now()
  })
}

export async function dropCaches(world: World, random: Random): Promise<void> {
  const isAll = random.below(2) === 0
  world.journal.action('machine', isAll ? 'drop all caches' : 'drop the page cache')
  await (isAll ? dropAllCaches() : dropPageCache())
}
