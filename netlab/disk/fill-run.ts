import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isP2pfsError } from '../../protocol/errors.ts'
import { eventually } from '../../test/support/deadline.ts'
import type { createRandom } from '../../test/support/random.ts'
import { run } from '../hosts/process.ts'
import { DiskDaemon } from './disk-daemon.ts'
import { makeDiskImages, type DiskImage } from './disk-images.ts'
import { Reader } from './reader.ts'

type Random = ReturnType<typeof createRandom>

const mebibyte = 2 ** 20
/** The disk of the daemon's state. */
const diskBytes = 192 * mebibyte
/** More than fits on it. */
const images = { images: 10, bases: 2, baseBytes: 6 * mebibyte, ownBytes: 20 * mebibyte }
const readBytes = 64 * 1024
/** How long the disk stays full, and free, at most (ms). */
const phaseMs = 1_500
/** After the last time the daemon keeps chunks and seeds within so long (ms). */
const recoveryMs = 60_000

export interface FillRunOptions {
  times: number
  onProgress?: (text: string) => void
}

export interface FillFigures {
  fills: number
  reads: number
  wrong: number
  /** Failures of reads and mounts; there may be none. */
  failures: string[]
  /** Seeds that were tried, and that failed for want of room. */
  seeds: number
  seedsRefused: number
  /** Whether it is the daemon that was started. */
  isSameDaemon: boolean
}

/**
 * Somebody else fills the disk of a daemon to the last block, at random, and frees it again, while images are mounted,
 * read and seeded.
 */
export async function runFill(directory: string, random: Random, options: FillRunOptions): Promise<FillFigures> {
  const { times, onProgress } = options
  const made = await makeDiskImages(directory, images)
  const disk = join(directory, 'disk')
  await mkdir(disk)
  await run('truncate', ['-s', String(diskBytes), join(directory, 'disk.img')])
  await run('mkfs.ext4', ['-q', '-m0', join(directory, 'disk.img')])
  await run('mount', ['-o', 'loop', join(directory, 'disk.img'), disk])
  try {
    await using daemon = await DiskDaemon.start(join(directory, 'host'), ['--hot-images', 'off'], join(disk, 'state'))
    const { daemonPid } = await daemon.status()
    const figures: FillFigures = {
      fills: 0,
      reads: 0,
      wrong: 0,
      failures: [],
      seeds: 0,
      seedsRefused: 0,
      isSameDaemon: true,
    }
    // This image is mounted at all times, and read.
    const stays = made[0]!
    await daemon.call('POST /v1/images/seed', { image: stays.reference, format: 'erofs' })
    const standing = await daemon.mount(stays.reference)
    const over = new AbortController()
    const load = [
      readOn(standing, stays, random, figures, over.signal),
      mountOn(daemon, made.slice(1, 6), random, figures, over.signal),
      seedOn(daemon, made.slice(6), random, figures, over.signal),
    ]
    for (let i = 0; i < times; i++) {
      await fill(join(disk, 'filler'))
      figures.fills++
      await sleep(random.below(phaseMs))
      await rm(join(disk, 'filler'))
      await sleep(random.below(phaseMs))
      if (i % 10 === 9)
        onProgress?.(`${i + 1} of ${times} times: ${figures.reads} reads, ${figures.failures.length} failures`)
    }
    over.abort()
    await Promise.all(load)
    await eventually(
      'an image is seeded again',
      async () =>
        await daemon.call('POST /v1/images/seed', { image: made[7]!.reference, format: 'erofs' }).then(
          () => true,
          () => undefined,
        ),
      { timeoutMs: recoveryMs },
    )
    await daemon.umount(standing)
    figures.isSameDaemon = (await daemon.status()).daemonPid === daemonPid
    return figures
  } finally {
    await run('umount', [disk])
    await rm(join(directory, 'disk.img'))
  }
}

/** Writes until the disk refuses. */
async function fill(path: string): Promise<void> {
  await using file = await open(path, 'w')
  for (const blockBytes of [mebibyte, 4096])
    for (let isFull = false; !isFull;)
      await file.write(Buffer.alloc(blockBytes, 1)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOSPC') throw error
        isFull = true
      })
}

/** Reads at random from a mount, past what the kernel has of it now and then. */
async function readOn(
  directory: string,
  { files }: DiskImage,
  random: Random,
  figures: FillFigures,
  signal: AbortSignal,
): Promise<void> {
  await using reader = new Reader()
  while (!signal.aborted) {
    const reads = Array.from({ length: 16 }, () => {
      const { path, truth, sizeBytes } = files[random.below(files.length)]!
      return {
        file: join(directory, path),
        truth,
        offset: random.below(sizeBytes / readBytes) * readBytes,
        length: readBytes,
      }
    })
    const { ms, wrong, failures } = await reader.read({ reads })
    figures.reads += ms.length
    figures.wrong += wrong
    figures.failures.push(...failures)
    if (random.below(4) === 0) await run('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
    await sleep(random.below(50))
  }
}

/** Mounts one image after the other, and reads all of it. Whether it can be imported is another thing: see `isImport`. */
async function mountOn(
  daemon: DiskDaemon,
  made: readonly DiskImage[],
  random: Random,
  figures: FillFigures,
  signal: AbortSignal,
): Promise<void> {
  await using reader = new Reader()
  const known = new Set<string>()
  while (!signal.aborted) {
    const { reference, files } = made[random.below(made.length)]!
    let directory: string
    try {
      directory = await daemon.mount(reference)
    } catch (error) {
      // An image that is not known yet is imported, which may fail on a full disk.
      if (known.has(reference) || !isRefusal(error))
        figures.failures.push(`mount ${reference}: ${(error as Error).message}`)
      await sleep(100)
      continue
    }
    known.add(reference)
    const reads = files.flatMap(({ path, truth, sizeBytes }) =>
      Array.from({ length: sizeBytes / readBytes }, (_, i) => i * readBytes)
        .filter(() => random.next() < 0.2)
        .map((offset) => ({ file: join(directory, path), truth, offset, length: readBytes })),
    )
    const { ms, wrong, failures } = await reader.read({ reads })
    figures.reads += ms.length
    figures.wrong += wrong
    figures.failures.push(...failures)
    await daemon
      .umount(directory)
      .catch((error: unknown) => figures.failures.push(`umount ${reference}: ${(error as Error).message}`))
  }
}

async function seedOn(
  daemon: DiskDaemon,
  made: readonly DiskImage[],
  random: Random,
  figures: FillFigures,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const { reference } = made[random.below(made.length)]!
    figures.seeds++
    try {
      await daemon.call('POST /v1/images/seed', { image: reference, format: 'erofs' })
      await daemon.call(`DELETE /v1/images?image=${encodeURIComponent(reference)}`)
    } catch (error) {
      if (isRefusal(error)) figures.seedsRefused++
      else figures.failures.push(`seed ${reference}: ${(error as Error).message}`)
      await daemon.call(`DELETE /v1/images?image=${encodeURIComponent(reference)}`).catch(() => undefined)
    }
    await sleep(random.below(300))
  }
}

/** The errors that a full disk makes, and no other. */
function isRefusal(error: unknown): boolean {
  return (
    isP2pfsError(error, 'unavailable') &&
    /disk is full|no space left|store has|could not be kept|room/i.test(error.message)
  )
}
