import { lstat, mkdir, open, rename, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MountRequest } from '../../node/control/api.ts'
import type { createRandom } from '../../test/support/random.ts'
import { run } from '../hosts/process.ts'
import type { Answer, ChaosHost, ChaosMount } from './chaos-host.ts'
import { formats } from './truth.ts'
import { describeMount, wasDisturbed, type World } from './world.ts'

export type Random = ReturnType<typeof createRandom>

const mebibyte = 2 ** 20
/** Directories in each parent. */
const names = ['m0', 'm1', 'm2', 'm3'] as const
/** A reader may hold a file until its deadline. */
const drainMs = 40_000
const busyTries = 10
/** The place of the mark in a scratch drive: behind the superblock, and before the end. */
export const scratchMark = { offset: 8 * mebibyte, lengthBytes: 4096 } as const
let writes = 0

export function pick<T>(random: Random, items: readonly T[]): T | undefined {
  return items[random.below(items.length)]
}

/** Mounts an image on a free directory, maybe through a symbolic link. */
export async function mountSomething(
  world: World,
  host: ChaosHost,
  random: Random,
  { withLinks }: { withLinks: boolean },
): Promise<void> {
  const image = pick(random, world.images)!
  const parent = pick(random, host.parents)!
  const name = pick(random, names)!
  const format = pick(random, formats)!
  const kind = random.below(6)
  const way = withLinks ? random.below(3) : 0
  const key = `${parent.homePath}/${name}`
  if (host.mounts.has(key) || parent.isMoved) return
  const directory = join(parent.homePath, name)
  await mkdir(directory, { recursive: true })
  const named = await nameFor(directory, parent.homePath, name, way)
  const request: MountRequest = {
    image: image.reference,
    directory: named,
    format,
    as: kind < 3 ? 'drive' : 'tree',
    ...(kind === 2 && { scratchBytes: 16 * mebibyte }),
    ...(kind >= 4 && { writable: true }),
    ...(kind === 5 && { limitBytes: 64 * mebibyte }),
  }
  const mount: ChaosMount = {
    image,
    format,
    request,
    parent,
    name,
    generation: 0,
    isChanging: false,
    readers: 0,
    written: new Map(),
    unknown: new Set(),
  }
  const what = describeMount(mount)
  world.journal.action(host.name, `mount ${what}`)
  const begunAt = performance.now()
  const answer = await host.mount(request)
  if (!judge(world, host, begunAt, `mount ${what}`, answer)) {
    // It may have been done, and only the answer is missing.
    const { stands, isListed } = await look(world, host, mount)
    if (!stands && !isListed) return
    if (stands !== isListed) {
      world.journal.found('left-over', host.name, `after a failed mount ${what}: stands ${stands}, listed ${isListed}`)
      if (stands) await run('umount', ['-l', host.pathOf(mount)]).catch(() => undefined)
      return
    }
  } else if ('result' in answer && answer.result.scratch !== undefined) mount.scratch = answer.result.scratch
  host.mounts.set(key, mount)
}

/** Mounts on a directory that is mounted already, by another name of it. */
export async function mountTwice(world: World, host: ChaosHost, random: Random): Promise<void> {
  const mount = pick(random, [...host.mounts.values()])
  const image = pick(random, world.images)!
  if (mount === undefined || mount.isChanging || mount.parent.isMoved) return
  const directory = host.pathOf(mount)
  const other =
    directory === mount.request.directory ? join(await linkTo(mount.parent.homePath), mount.name) : directory
  world.journal.action(host.name, `mount again on ${directory} as ${other}`)
  mount.isChanging = true
  mount.generation++
  const answer = await host.mount({ image: image.reference, directory: other, as: 'tree' })
  if ('result' in answer) {
    world.journal.found('mount-twice', host.name, `${describeMount(mount)} is covered by a mount on ${other}`)
    await host.umount(other)
  }
  mount.isChanging = false
}

/** Ends a mount after its readers have left. */
export async function unmountSomething(world: World, host: ChaosHost, random: Random): Promise<void> {
  const entry = pick(random, [...host.mounts])
  if (entry !== undefined) await unmount(world, host, ...entry)
}

export async function unmount(world: World, host: ChaosHost, key: string, mount: ChaosMount): Promise<void> {
  world.journal.action(host.name, `umount ${describeMount(mount)}${mount.parent.isMoved ? ', moved' : ''}`)
  await letReadersOut(mount)
  const begunAt = performance.now()
  let answer = await host.umount(mount.request.directory)
  for (let i = 0; i < busyTries && 'refused' in answer && answer.refused.code === 'conflict'; i++) {
    await sleep(500)
    answer = await host.umount(mount.request.directory)
  }
  // The user's name leads nowhere while its parent is elsewhere.
  const isExcused = mount.parent.isMoved && 'refused' in answer
  if (!isExcused) judge(world, host, begunAt, `umount ${describeMount(mount)}`, answer)
  await settle(world, host, key, mount)
}

/** Resets a scratch or an upper layer, with or without readers in it. */
export async function resetSomething(world: World, host: ChaosHost, random: Random): Promise<void> {
  const isPolite = random.below(2) === 0
  const changeable = [...host.mounts].filter(([, { request }]) => request.writable ?? request.scratchBytes)
  const entry = pick(random, changeable)
  if (entry === undefined || entry[1].parent.isMoved) return
  const [key, mount] = entry
  world.journal.action(host.name, `reset ${describeMount(mount)}${isPolite ? '' : ', in use'}`)
  if (isPolite) await letReadersOut(mount)
  // Readers that are in it stay.
  mount.isChanging = true
  mount.generation++
  const begunAt = performance.now()
  const answer = await host.reset(mount.request.directory)
  mount.generation++
  if (!isPolite && 'refused' in answer && answer.refused.code === 'conflict') {
    mount.isChanging = false
    return
  }
  judge(world, host, begunAt, `reset ${describeMount(mount)}`, answer)
  if (!('refused' in answer) || wasDisturbed(world, host, begunAt)) {
    // The layer is fresh, or nobody knows.
    for (const path of mount.written.keys()) if (!('result' in answer)) mount.unknown.add(path)
    if ('result' in answer) mount.unknown.clear()
    mount.written.clear()
    delete mount.scratchMark
  }
  if ('result' in answer) mount.isChanging = false
  else await settle(world, host, key, mount)
}

/** Writes a file into a writable tree, or a mark into a scratch drive. */
export async function writeSomething(world: World, host: ChaosHost, random: Random): Promise<void> {
  const changeable = [...host.mounts.values()].filter(({ request }) => request.writable ?? request.scratchBytes)
  const mount = pick(random, changeable)
  const bytes = random.bytes(1 + random.below(200_000))
  const isNew = random.below(2) === 0
  const number = random.below(20)
  if (mount === undefined || mount.isChanging || mount.parent.isMoved) return
  const truth = join(world.writtenDirectory, String(writes++))
  const { generation } = mount
  if (mount.scratch !== undefined) {
    await writeAt(truth, scratchMark.offset, bytes, scratchMark.lengthBytes)
    delete mount.scratchMark
    await run('dd', [
      'conv=notrunc',
      'bs=4096',
      `skip=2048`,
      `seek=2048`,
      'count=1',
      `if=${truth}`,
      `of=${mount.scratch}`,
    ])
      .then(() => void (mount.scratchMark = truth))
      .catch(() => undefined)
    return
  }
  const old = pick(
    random,
    mount.image.files.filter((path) => /^[\w./-]+$/.test(path)),
  )
  const path = isNew || old === undefined ? `chaos-${number}` : old
  world.journal.action(host.name, `write ${bytes.length} bytes to ${path} in ${describeMount(mount)}`)
  await writeAt(truth, 0, bytes, bytes.length)
  mount.unknown.add(path)
  mount.written.delete(path)
  const begunAt = performance.now()
  const signal = AbortSignal.timeout(drainMs)
  try {
    await run('cp', ['--no-preserve=all', truth, join(host.pathOf(mount), path)], { signal })
  } catch (error) {
    const isExcused =
      wasDisturbed(world, host, begunAt) || mount.generation !== generation || /No space left/.test(String(error))
    if (!isExcused) world.journal.found('operation-failed', host.name, `write to ${path}: ${String(error)}`)
    return
  }
  if (mount.generation !== generation) return
  mount.unknown.delete(path)
  mount.written.set(path, truth)
}

/** Renames the parent of mounts, and back after a while. */
export async function renameParent(world: World, host: ChaosHost, random: Random): Promise<void> {
  const parent = pick(random, host.parents)!
  const ms = 500 + random.below(4000)
  if (parent.isMoved) return
  world.journal.action(host.name, `rename ${parent.homePath} for ${ms} ms`)
  await move(host, parent, true)
  world.undo.after(ms, async () => await host.inTurn(async () => await move(host, parent, false)))
}

async function move(host: ChaosHost, parent: ChaosMount['parent'], isAway: boolean): Promise<void> {
  const inside = [...host.mounts.values()].filter((mount) => mount.parent === parent)
  for (const mount of inside) mount.generation++
  await rename(parent.path, isAway ? parent.movedPath : parent.homePath)
  parent.isMoved = isAway
  for (const mount of inside) mount.generation++
}

/** Compares what the daemon lists with what the kernel has, and with what should stand. */
export async function compareLists(world: World, host: ChaosHost): Promise<void> {
  for (const [key, mount] of host.mounts) if (!mount.parent.isMoved) await settle(world, host, key, mount, true)
}

/** Finds out what became of a mount. @param mustStand nothing has been done to it */
async function settle(world: World, host: ChaosHost, key: string, mount: ChaosMount, mustStand = false): Promise<void> {
  const { stands, isListed } = await look(world, host, mount)
  if (stands && isListed) {
    mount.isChanging = false
    return
  }
  host.mounts.delete(key)
  mount.generation++
  if (!stands && !isListed && !mustStand) return
  world.journal.found('mount-lost', host.name, `${describeMount(mount)}: stands ${stands}, listed ${isListed}`)
  // The run goes on without it.
  if (stands) await run('umount', ['-l', host.pathOf(mount)]).catch(() => undefined)
  if (isListed) await host.umount(mount.request.directory)
}

async function look(world: World, host: ChaosHost, mount: ChaosMount): Promise<{ stands: boolean; isListed: boolean }> {
  const status = await host.status()
  if (status === undefined) world.journal.found('daemon-gone', host.name, 'no daemon answers')
  const path = host.pathOf(mount)
  const directories = [mount.request.directory, path, join(mount.parent.homePath, mount.name)]
  const isListed = status?.mounts.some(({ directory }) => directories.includes(directory)) ?? false
  return { stands: host.stands(path), isListed }
}

/** Reports an answer that no fault explains. @returns whether the request has succeeded */
function judge(world: World, host: ChaosHost, begunAt: number, what: string, answer: Answer<unknown>): boolean {
  if ('result' in answer) return true
  if ('hangs' in answer) world.journal.found('operation-hangs', host.name, `${what}: ${answer.hangs}`)
  else if ('gone' in answer) world.journal.found('daemon-gone', host.name, `${what}: ${answer.gone}`)
  else if ('refused' in answer && !wasDisturbed(world, host, begunAt))
    world.journal.found('operation-failed', host.name, `${what}: ${answer.refused.code}: ${answer.refused.message}`)
  return false
}

async function letReadersOut(mount: ChaosMount): Promise<void> {
  mount.isChanging = true
  mount.generation++
  for (const deadline = performance.now() + drainMs; mount.readers > 0 && performance.now() < deadline;) await sleep(50)
}

/** @param way 0: its own name; 1: through a link to its parent; 2: a link to the directory itself */
async function nameFor(directory: string, parent: string, name: string, way: number): Promise<string> {
  if (way === 0) return directory
  if (way === 1) return join(await linkTo(parent), name)
  return await linkTo(directory)
}

/** A symbolic link beside a directory. */
async function linkTo(directory: string): Promise<string> {
  const link = `${directory}-link`
  if ((await lstat(link).catch(() => undefined)) === undefined) await symlink(directory, link)
  return link
}

async function writeAt(path: string, offset: number, bytes: Buffer, lengthBytes: number): Promise<void> {
  await rm(path, { force: true })
  await using file = await open(path, 'w')
  await file.write(bytes, 0, Math.min(bytes.length, lengthBytes), offset)
  await file.truncate(offset + lengthBytes)
}
