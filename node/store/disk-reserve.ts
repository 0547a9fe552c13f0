import { open, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Log } from '../base/log.ts'

/** Room for the catalog to be opened and written for a while: its log, manifest and one table (bytes). */
const reserveBytes = 8 * 1024 * 1024
/** Less free space than this, and small writes are about to fail: one log of the catalog (bytes). */
const lowBytes = 2 * 1024 * 1024
/** With this much free, the reserve is made (bytes). */
const roomBytes = 2 * reserveBytes
/** As {@link lowBytes} and {@link roomBytes}, of files that can be made: each chunk is one. */
const inodes = { low: 16, room: 1024 } as const
/** How often the free space is looked at (ms). */
const watchMs = 1_000

/**
 * A file that holds some disk space for the time when somebody else has filled the disk. It is given up then, so the few small
 * writes that mounts need still succeed, and no chunk is kept until there is room again.
 */
export class DiskReserve implements Disposable {
  readonly #path: string
  readonly #log: Log
  #isHeld = false
  #wasFull = false
  #timer: NodeJS.Timeout | undefined

  private constructor({ log }: { log: Log }, { path }: { path: string }) {
    this.#path = path
    this.#log = log
  }

  /** Takes the reserve where there is room for it, and watches the disk until it is disposed of. */
  static async open(parts: { log: Log }, options: { path: string }): Promise<DiskReserve> {
    const reserve = new DiskReserve(parts, options)
    reserve.#isHeld = await stat(options.path).then(
      ({ size }) => size === reserveBytes,
      () => false,
    )
    await reserve.#look()
    const watch = (): void => {
      reserve.#timer = setTimeout(
        () =>
          void reserve
            .#look()
            .catch(() => undefined)
            .finally(watch),
        watchMs,
      ).unref()
    }
    watch()
    return reserve
  }

  /** Whether the disk has no room for chunks. */
  get isFull(): boolean {
    return !this.#isHeld
  }

  /** Gives the reserve up, since a write has failed for lack of space. */
  async release(): Promise<void> {
    if (this.#isHeld) this.#log.error('disk is full; reads go on, but no chunk is kept until there is room again')
    this.#isHeld = false
    this.#wasFull = true
    await rm(this.#path, { force: true })
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }

  async #look(): Promise<void> {
    const { bavail, bsize, files, ffree } = await statfs(dirname(this.#path))
    const freeBytes = bavail * bsize
    // Some filesystems make them as needed, and say none.
    const freeInodes = files === 0 ? Infinity : ffree
    if (this.#isHeld && (freeBytes < lowBytes || freeInodes < inodes.low)) await this.release()
    else if (!this.#isHeld && freeBytes > roomBytes && freeInodes > inodes.room)
      await this.#take().catch(async () => await this.release())
  }

  async #take(): Promise<void> {
    const file = await open(this.#path, 'w', 0o600)
    try {
      await file.writeFile(Buffer.alloc(reserveBytes))
      await file.datasync()
    } finally {
      await file.close()
    }
    this.#isHeld = true
    if (this.#wasFull) this.#log.info('disk has room again; chunks are kept')
    this.#wasFull = false
  }
}
