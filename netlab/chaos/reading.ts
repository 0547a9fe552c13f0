import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createRandom } from '../../test/support/random.ts'
import type { ChaosHost, ChaosMount } from './chaos-host.ts'
import { pick, scratchMark, type Random } from './mount-actions.ts'
import type { ReadJob } from './reader-main.ts'
import { Reader, type ReadOutcome } from './reader.ts'
import { describeMount, mayFail, readDeadlineMs, type World } from './world.ts'

/** Readers of each host. */
const readersPerHost = 2
/** A read may take this much longer than its deadline on a busy machine (ms). */
const slackMs = 25_000
const maxRangeBytes = 2 << 20
const idleMs = 200

interface Target {
  mount: ChaosMount
  job: ReadJob
  /** Written content may be gone after a change. */
  isWritten: boolean
  /** Whether the file has been written to since this was chosen: what was read is the old content, and the new one. */
  isOverwritten: () => boolean
}

/** Reads the mounts of all hosts until it is stopped, and compares every byte with the truth. */
export class Reading {
  readonly #world: World
  readonly #stopping = new AbortController()
  readonly #running: Promise<void>[] = []
  bytes = 0
  reads = 0
  failedReads = 0

  constructor(world: World) {
    this.#world = world
  }

  start(seed: number): void {
    for (const [i, host] of this.#world.hosts.entries()) {
      for (let k = 0; k < readersPerHost; k++) this.#running.push(this.#readOn(host, createRandom(seed + 1000 * i + k)))
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.all(this.#running)
  }

  /** Reads a mount at the end of a run. */
  async readAll(host: ChaosHost, mount: ChaosMount): Promise<void> {
    const reader = new Reader()
    for (const target of allTargets(host, mount)) if ((await this.#read(host, reader, target)) === 'hangs') break
    reader.stop()
  }

  async #readOn(host: ChaosHost, random: Random): Promise<void> {
    const reader = new Reader()
    while (!this.#stopping.signal.aborted) {
      const mount = pick(
        random,
        [...host.mounts.values()].filter(({ isChanging }) => !isChanging),
      )
      const target = mount === undefined ? undefined : chooseTarget(host, mount, random)
      if (target === undefined) await sleep(idleMs)
      else await this.#read(host, reader, target)
    }
    reader.stop()
  }

  async #read(host: ChaosHost, reader: Reader, target: Target): Promise<ReadOutcome> {
    const { mount, job, isWritten } = target
    const { generation } = mount
    const begunAt = performance.now()
    mount.readers++
    const outcome = await reader.run(job, (pieceBegunAt) => {
      const since = Math.max(pieceBegunAt, host.disturbedAt)
      return host.frozenPid === undefined && performance.now() - since > readDeadlineMs + slackMs
    })
    mount.readers--
    this.reads++
    if (outcome !== 'hangs' && 'sameBytes' in outcome) {
      this.bytes += outcome.sameBytes
      return outcome
    }
    const hasChanged = mount.generation !== generation || mount.isChanging
    this.#judge(host, target, outcome, { hasChanged, isWritten, begunAt })
    // A source that is away is not asked on and on.
    await sleep(idleMs)
    return outcome
  }

  #judge(
    host: ChaosHost,
    { mount, job, isOverwritten }: Target,
    outcome: Exclude<ReadOutcome, { sameBytes: number }>,
    { hasChanged, isWritten, begunAt }: { hasChanged: boolean; isWritten: boolean; begunAt: number },
  ): void {
    const { journal } = this.#world
    const subject = describeMount(mount)
    const where = `${job.path} of ${subject}`
    const ms = Math.round(performance.now() - begunAt)
    if (outcome === 'hangs') journal.found('read-hangs', host.name, `${where}, from ${job.offset}: ${ms} ms`, subject)
    else if ('differsAt' in outcome) {
      if ((isWritten && hasChanged) || isOverwritten()) return
      const { differsAt } = outcome
      journal.found(isWritten ? 'write-lost' : 'wrong-bytes', host.name, `${where}: byte ${differsAt} differs`, subject)
    } else {
      this.failedReads++
      const { error, offset } = outcome
      if (hasChanged || (error === 'EIO' && mayFail(this.#world, begunAt))) return
      journal.found('read-failed', host.name, `${where}: ${error} at ${offset} after ${ms} ms`, subject)
    }
  }
}

function chooseTarget(host: ChaosHost, mount: ChaosMount, random: Random): Target | undefined {
  const { image, format, request, written, unknown, scratch } = mount
  const directory = host.pathOf(mount)
  const pieceBytes = 4096 << random.below(7)
  if (request.as === 'drive') {
    if (scratch !== undefined && mount.scratchMark !== undefined && random.below(3) === 0)
      return markTarget(mount, directory)
    const offset = random.below(image.driveBytes[format])
    const lengthBytes = Math.min(1 + random.below(maxRangeBytes), image.driveBytes[format] - offset)
    const job = {
      path: join(directory, 'rootfs.img'),
      truthPath: image.drives[format],
      offset,
      lengthBytes,
      pieceBytes,
    }
    return { mount, job, isWritten: false, isOverwritten: never }
  }
  if (written.size > 0 && random.below(3) === 0) {
    const [path, truthPath] = pick(random, [...written])!
    return fileTarget(mount, { directory, path, truthPath, pieceBytes, isWritten: true })
  }
  const path = pick(random, image.files)!
  if (written.has(path) || unknown.has(path)) return undefined
  return fileTarget(mount, { directory, path, truthPath: join(image.directory, path), pieceBytes, isWritten: false })
}

/** Files of a writable tree that are compared at the end of a run, besides those that were written. */
const maxFilesAtEnd = 300

/** All of a drive; of a writable tree what was written, and some files. Other trees are compared as trees. */
function* allTargets(host: ChaosHost, mount: ChaosMount): Generator<Target> {
  const { image, format, request, written, unknown } = mount
  const directory = host.pathOf(mount)
  const pieceBytes = 256 << 10
  if (request.as === 'drive') {
    const lengthBytes = image.driveBytes[format]
    const files = { path: join(directory, 'rootfs.img'), truthPath: image.drives[format] }
    yield { mount, job: { ...files, offset: 0, lengthBytes, pieceBytes }, isWritten: false, isOverwritten: never }
    if (mount.scratchMark !== undefined) yield markTarget(mount, directory)
    return
  }
  for (const [path, truthPath] of written)
    yield fileTarget(mount, { directory, path, truthPath, pieceBytes, isWritten: true })
  const every = Math.ceil(image.files.length / maxFilesAtEnd)
  for (const [i, path] of image.files.entries()) {
    if (request.writable !== true || i % every > 0 || written.has(path) || unknown.has(path)) continue
    yield fileTarget(mount, { directory, path, truthPath: join(image.directory, path), pieceBytes, isWritten: false })
  }
}

function never(): boolean {
  return false
}

/** @param file `path`: below the mount's `directory` */
function fileTarget(
  mount: ChaosMount,
  {
    directory,
    path,
    truthPath,
    pieceBytes,
    isWritten,
  }: { directory: string; path: string; truthPath: string; pieceBytes: number; isWritten: boolean },
): Target {
  // The ends of both files are compared too.
  const job = { path: join(directory, path), truthPath, offset: 0, lengthBytes: Number.MAX_SAFE_INTEGER, pieceBytes }
  const isOverwritten = (): boolean =>
    mount.unknown.has(path) || mount.written.get(path) !== (isWritten ? truthPath : undefined)
  return { mount, job, isWritten, isOverwritten }
}

function markTarget(mount: ChaosMount, directory: string): Target {
  const job = {
    path: join(directory, 'scratch.img'),
    truthPath: mount.scratchMark!,
    ...scratchMark,
    pieceBytes: scratchMark.lengthBytes,
  }
  return { mount, job, isWritten: true, isOverwritten: never }
}
