import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { createRandom } from '../../test/support/random.ts'
import { DiskDaemon } from './disk-daemon.ts'
import { makeDiskImages, type DiskImage, type DiskImagesOptions } from './disk-images.ts'
import type { ReadJob } from './read-job.ts'
import { Reader } from './reader.ts'

type Random = ReturnType<typeof createRandom>

/** A read of a program (bytes). */
const readBytes = 64 * 1024
/** The share of an image's pieces that each mount reads, and one in so many of the others. */
const bootShare = 0.3
const otherShare = 0.03
/** Mounts at once. */
const atOnce = 3
/** How often the store is measured (ms). */
const measureMs = 500

export interface ZipfRunOptions extends DiskImagesOptions {
  limitBytes: number
  mounts: number
  skew: number
  onProgress?: (text: string) => void
}

export interface ZipfFigures {
  /** All reads, and those of an image that is pinned and whole, sorted (ms). */
  readMs: number[]
  pinnedMs: number[]
  mountMs: number[]
  failures: string[]
  wrong: number
  /** The most that the store took, as the disk has it and as the daemon says. */
  mostBytes: number
  mostStatedBytes: number
  evictedBytes: number
}

/**
 * Mounts of images, Zipf-distributed: each is mounted as a tree, read as a boot reads it and at random, and unmounted, by a
 * daemon with a limit and by one without, side by side. Between these, an image that is pinned on both is read.
 */
export async function runZipf(
  directory: string,
  random: Random,
  options: ZipfRunOptions,
): Promise<Record<'limited' | 'unlimited', ZipfFigures>> {
  const { limitBytes, mounts, skew, images: count, onProgress } = options
  const images = await makeDiskImages(directory, { ...options, images: count + 1 })
  const pinned = images.pop()!
  onProgress?.(`${images.length} images are made`)
  const common = ['--native-reads', 'off', '--hot-images', 'off']
  await using limited = await DiskDaemon.start(join(directory, 'limited'), [
    ...common,
    '--store-limit',
    String(limitBytes),
    '--store-keep-free',
    '0',
  ])
  await using unlimited = await DiskDaemon.start(join(directory, 'unlimited'), [...common, '--store-keep-free', '0'])
  const hosts = [new Host(limited), new Host(unlimited)] as const
  const boots = images.map((image) => piecesOf(image).filter(() => random.next() < bootShare))
  const weights = images.map((_, i) => 1 / (i + 1) ** skew)
  const sum = weights.reduce((a, b) => a + b)
  let done = 0
  for (const host of hosts) await host.pin(pinned)
  let isOver = false
  const measuring = hosts.map(async (host) => {
    for (;;) {
      await host.measure()
      if (isOver) return
      await sleep(measureMs)
    }
  })
  try {
    while (done < mounts) {
      const steps = Array.from({ length: Math.min(atOnce, mounts - done) }, () => {
        let rank = 0
        for (let left = random.next() * sum; rank < images.length - 1 && (left -= weights[rank]!) > 0;) rank++
        const others = piecesOf(images[rank]!).filter(() => random.next() < otherShare)
        return { image: images[rank]!, pieces: [...boots[rank]!, ...others] }
      })
      // The hosts take turns in being first.
      for (const host of done % 2 === 0 ? hosts : hosts.toReversed()) await host.step(steps, random)
      done += steps.length
      if (done % 30 < atOnce) onProgress?.(`${done} of ${mounts} mounts`)
    }
  } finally {
    isOver = true
    await Promise.allSettled(measuring)
    for (const host of hosts) await host.close()
  }
  for (const { figures } of hosts)
    for (const ms of [figures.readMs, figures.pinnedMs, figures.mountMs]) ms.sort((a, b) => a - b)
  return { limited: hosts[0].figures, unlimited: hosts[1].figures }
}

/** A part of a file of an image. */
interface Piece {
  path: string
  truth: string
  offset: number
}

function piecesOf({ files }: DiskImage): Piece[] {
  return files.flatMap(({ path, truth, sizeBytes }) =>
    Array.from({ length: Math.floor(sizeBytes / readBytes) }, (_, i) => ({ path, truth, offset: i * readBytes })),
  )
}

const jobOf = (directory: string, pieces: readonly Piece[]): ReadJob => ({
  reads: pieces.map(({ path, truth, offset }) => ({ file: join(directory, path), truth, offset, length: readBytes })),
})

/** One of the daemons, with the programs that read its mounts. */
class Host {
  readonly figures: ZipfFigures = {
    readMs: [],
    pinnedMs: [],
    mountMs: [],
    failures: [],
    wrong: 0,
    mostBytes: 0,
    mostStatedBytes: 0,
    evictedBytes: 0,
  }
  readonly #daemon: DiskDaemon
  readonly #readers = Array.from({ length: atOnce }, () => new Reader())
  readonly #pinnedReader = new Reader()
  #pinned: { image: DiskImage; pieces: Piece[] } | undefined

  constructor(daemon: DiskDaemon) {
    this.#daemon = daemon
  }

  async pin(image: DiskImage): Promise<void> {
    await this.#daemon.call('POST /v1/images/seed', { image: image.reference, format: 'erofs' })
    await this.#daemon.call('POST /v1/images/pin', { image: image.reference })
    this.#pinned = { image, pieces: piecesOf(image) }
  }

  /** The mounts at once, and beside them reads of the pinned image. */
  async step(steps: readonly { image: DiskImage; pieces: readonly Piece[] }[], random: Random): Promise<void> {
    const { image, pieces } = this.#pinned!
    const some = pieces.filter(() => random.next() < 0.1)
    await Promise.all([
      ...steps.map(async (step, i) => await this.#mountAndRead(step.image, step.pieces, this.#readers[i]!)),
      this.#mountAndRead(image, some, this.#pinnedReader, this.figures.pinnedMs),
    ])
  }

  async #mountAndRead(
    { reference }: DiskImage,
    pieces: readonly Piece[],
    reader: Reader,
    into: number[] = this.figures.readMs,
  ): Promise<void> {
    const { figures } = this
    const startedAtMs = performance.now()
    try {
      const directory = await this.#daemon.mount(reference)
      figures.mountMs.push(performance.now() - startedAtMs)
      const { ms, failures, wrong } = await reader.read(jobOf(directory, pieces))
      into.push(...ms)
      figures.failures.push(...failures)
      figures.wrong += wrong
      await this.#daemon.umount(directory)
    } catch (error) {
      figures.failures.push(`${reference}: ${(error as Error).message}`)
    }
  }

  async measure(): Promise<void> {
    const { figures } = this
    figures.mostBytes = Math.max(figures.mostBytes, await this.#daemon.storeBytes())
    const { storeBytes, evicted } = await this.#daemon.status()
    figures.mostStatedBytes = Math.max(figures.mostStatedBytes, storeBytes)
    figures.evictedBytes = evicted.bytes
  }

  async close(): Promise<void> {
    await this.measure()
    for (const reader of [...this.#readers, this.#pinnedReader]) await reader[Symbol.asyncDispose]()
  }
}
