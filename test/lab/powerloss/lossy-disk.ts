import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, statSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { run } from '../../../netlab/hosts/process.ts'
import type { Filesystem } from './filesystems.ts'

/**
 * How often, and how long apart (ms), it is tried to unmount what something still uses: a sync, or a mount namespace that
 * another test has copied meanwhile.
 */
const [unmountAttempts, unmountPauseMs] = [1_200, 50]

/** Writes to the disk since its last sync, and what became of them. */
export interface PowerCut {
  writes: number
  keptBytes: number
  lostBytes: number
}

/** A disk whose power can be cut, with a filesystem on it. Its image is a file; see lossy-disk-main.ts. */
export class LossyDisk {
  /** The directory of the filesystem, while it is mounted. */
  readonly mounted: string
  readonly #sectorBytes: number
  readonly #image: string
  readonly #left: string
  readonly #disk: string

  private constructor(directory: string, sectorBytes: number) {
    this.#sectorBytes = sectorBytes
    this.mounted = join(directory, 'mounted')
    this.#image = join(directory, 'image')
    this.#left = join(directory, 'left')
    this.#disk = join(directory, 'disk')
  }

  /** @param directory an empty one; it must be unmounted by nobody else */
  static async make(directory: string, filesystem: Filesystem, diskMiB = filesystem.diskMiB): Promise<LossyDisk> {
    const disk = new LossyDisk(directory, filesystem.sectorBytes)
    for (const path of [disk.#disk, disk.mounted]) mkdirSync(path)
    await run('truncate', ['-s', `${diskMiB}M`, disk.#image])
    const [command, ...args] = filesystem.make
    await run(command, [...args, disk.#image])
    return disk
  }

  /**
   * Has the filesystem mounted while the task runs, and then its disk is what the power loss has left.
   * @param task calls `cut` once, at the instant of the loss; what it writes from then on is lost
   * @returns what the task returned
   */
  async losePower<T>(
    { seed, mountedWith }: { seed: number; mountedWith: string },
    task: (cut: () => Promise<PowerCut>) => Promise<T>,
  ): Promise<T> {
    const program = fileURLToPath(new URL('lossy-disk-main.ts', import.meta.url))
    const argv = [program, this.#image, this.#disk, this.#left, `${this.#sectorBytes}`, `${seed}`]
    const lossy = spawn(process.execPath, argv, {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const says = createInterface(lossy.stdout)[Symbol.asyncIterator]()
    await says.next()
    const cut = async (): Promise<PowerCut> => {
      // It does not exist: the disk takes the question for the cut.
      statSync(join(this.#disk, 'power-loss'), { throwIfNoEntry: false })
      const { value } = await says.next()
      // The disk has ended.
      if (value === undefined) throw new Error('the disk lost its power by itself')
      return JSON.parse(value) as PowerCut
    }
    const done = await this.#whileServed(lossy, async () => {
      await run('mount', ['-o', `loop,${mountedWith}`, join(this.#disk, 'disk'), this.mounted])
      return await this.#whileMounted(async () => await task(cut))
    })
    await rename(this.#left, this.#image)
    return done
  }

  /** Has the filesystem mounted on a disk that is well while the task runs, as after the next boot. */
  async boot<T>(mountedWith: string, task: () => Promise<T>): Promise<T> {
    return await this.#mountImage(this.#image, mountedWith, task)
  }

  /** As {@link boot}, on a copy of the disk: what the task writes is gone afterwards. */
  async bootCopy<T>(mountedWith: string, task: () => Promise<T>): Promise<T> {
    const copy = `${this.#image}-copy`
    await run('cp', ['--sparse=always', this.#image, copy])
    return await this.#mountImage(copy, mountedWith, task)
  }

  async #mountImage<T>(image: string, mountedWith: string, task: () => Promise<T>): Promise<T> {
    await run('mount', ['-o', `loop,${mountedWith}`, image, this.mounted])
    try {
      return await this.#whileMounted(task)
    } finally {
      await released(image)
    }
  }

  async #whileMounted<T>(task: () => Promise<T>): Promise<T> {
    try {
      return await task()
    } finally {
      await unmount(this.mounted)
    }
  }

  async #whileServed<T>(lossy: ChildProcess, task: () => Promise<T>): Promise<T> {
    const ended = once(lossy, 'exit')
    try {
      return await task()
    } finally {
      await unmount(this.#disk)
      await ended
    }
  }
}

/** Resolves when no mount namespace has the filesystem any more: the next mount would get it as it is in memory. */
async function released(image: string): Promise<void> {
  for (let attempt = 1; (await run('losetup', ['-j', image])).stdout.length > 0; attempt++) {
    if (attempt === unmountAttempts) throw new Error(`${image} is in use`)
    await sleep(unmountPauseMs)
  }
}

async function unmount(directory: string): Promise<void> {
  for (let attempt = 1; ; attempt++)
    try {
      return void (await run('umount', [directory]))
    } catch (error) {
      if (attempt === unmountAttempts) throw error
      await sleep(unmountPauseMs)
    }
}
