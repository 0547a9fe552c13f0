import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { orAbort } from '../base/single-flight.ts'
import { SyncJournal } from './sync-journal.ts'
import { WriteEpochs } from '../base/write-epochs.ts'

/** How long a chunk waits for its sync (ms): the last seconds of a host are checked after a power loss in about as long. */
const defaultGroupMs = 10_000
/** Half of what a power loss leaves in doubt at most (bytes): it is hashed in a second or two. */
const defaultGroupBytes = 512 * 1024 * 1024
/** How long the end of the process waits for the last sync (ms); what it leaves is checked after the next boot. */
const closeMs = 5_000
/** How often writes under way are looked at (ms), and how long they are waited for before a sync is given up. */
const quietCheckMs = 2
const maxQuietMs = 60_000
export interface GroupSyncParts {
  log: Log
  /** Puts everything of the path's filesystem on the disk. */
  syncFilesystem: (path: string) => Promise<void>
}

export interface GroupSyncOptions {
  /** The directory of the chunk files. */
  directory: string
  /** The boot of this host; the kernel's own by default. */
  bootId?: string
  /** A chunk waits this long for its sync at most (ms), if the disk keeps up. */
  groupMs?: number
  /** A group of chunks that is as large as this is synced without waiting (bytes). Twice as much is unsynced at most. */
  groupBytes?: number
}

/**
 * Makes chunk files durable in groups, in the background, and knows after a boot which of them may not be what they were.
 *
 * 1. A chunk file carries the epoch in which it was written.
 * 2. To sync a group is to close the epoch, to wait for its last writes, to sync the filesystem, and to note the epoch in
 *    the journal.
 * 3. When the store is opened in the boot that the journal names, or was closed, nothing is in doubt: a process that dies
 *    takes nothing with it. Otherwise files of later epochs than the last that was noted are in doubt, and those without
 *    an epoch.
 * 4. The journal names the new boot when nothing is in doubt any more. So whatever happens before is no different from
 *    the first boot. Nothing is noted before, so it does no harm that an epoch of this process may be one of a file in
 *    doubt.
 */
export class GroupSync implements AsyncDisposable {
  readonly #log: Log
  readonly #syncFilesystem: GroupSyncParts['syncFilesystem']
  readonly #directory: string
  readonly #journal: SyncJournal
  readonly #bootId: string
  readonly #groupMs: number
  readonly #groupBytes: number
  /**
   * Files of this epoch, and of those before, were on the disk before the host lost power; undefined where no file is
   * in doubt.
   */
  readonly #certainEpoch: number | undefined
  readonly #epochs: WriteEpochs
  #isInDoubt: boolean
  /** The disk has lost what was written. A later success says nothing of that. */
  #hasLost = false
  #hasWarned = false
  #syncedEpoch: number
  /** Written since the last sync began (bytes). */
  #unsyncedBytes = 0
  #isDirty = false
  #running: Promise<void> | undefined
  #planned: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #settling: Promise<void> | undefined
  /** Those who wait for the next sync to end. */
  #waiting: (() => void)[] = []

  private constructor(
    { log, syncFilesystem }: GroupSyncParts,
    { directory, bootId, groupMs, groupBytes }: Required<GroupSyncOptions>,
    journal: SyncJournal,
    state: { syncedEpoch: number; isInDoubt: boolean },
  ) {
    this.#log = log
    this.#syncFilesystem = syncFilesystem
    this.#directory = directory
    this.#bootId = bootId
    this.#groupMs = groupMs
    this.#groupBytes = groupBytes
    this.#journal = journal
    this.#isInDoubt = state.isInDoubt
    this.#syncedEpoch = state.syncedEpoch
    this.#certainEpoch = state.isInDoubt ? state.syncedEpoch : undefined
    this.#epochs = WriteEpochs.startingAt(state.syncedEpoch + 1)
  }

  static async open(parts: GroupSyncParts, options: GroupSyncOptions): Promise<GroupSync> {
    const { directory, groupMs = defaultGroupMs, groupBytes = defaultGroupBytes } = options
    const bootId = options.bootId ?? (await currentBootId())
    const journal = new SyncJournal({ path: join(directory, 'sync-journal') })
    const state = await journal.read()
    // Without a journal every file is in doubt; a new store has none.
    const isInDoubt = state === undefined || (state.bootId !== bootId && !state.isClosed)
    const syncedEpoch = state?.syncedEpoch ?? 0
    const sync = new GroupSync(parts, { directory, bootId, groupMs, groupBytes }, journal, { syncedEpoch, isInDoubt })
    if (!isInDoubt) {
      await sync.#begin()
      // The process before has not synced its last group.
      if (state !== undefined && !state.isClosed) sync.noteWritten(0)
    }
    return sync
  }

  /** For threads that write chunk files. */
  get epochs(): WriteEpochs {
    return this.#epochs
  }

  /** Whether files may be in doubt. */
  get isInDoubt(): boolean {
    return this.#isInDoubt
  }

  /**
   * @param modifiedAtMs the modification time of a file
   * @returns whether it may not be what it was before the host lost power
   */
  isDoubtful(modifiedAtMs: number): boolean {
    return this.#certainEpoch !== undefined && Math.floor(modifiedAtMs / 1_000) > this.#certainEpoch
  }

  /** Nothing is in doubt any more: every file that was has an epoch of this process, or is gone. */
  async settle(): Promise<void> {
    this.#settling ??= this.#settle()
    await this.#settling
  }

  async #settle(): Promise<void> {
    if (!this.#isInDoubt) return
    if (this.#isDirty || this.#running !== undefined) await this.#plan()
    this.#isInDoubt = false
    await this.#begin()
  }

  /** Resolves when more may be written: at once, unless the disk is behind. */
  async room(): Promise<void> {
    while (this.#unsyncedBytes >= this.#groupBytes && this.#running !== undefined) await this.#running
  }

  /** A chunk file of so many bytes has got its name; 0 for another change of the directory or of a file's epoch. */
  noteWritten(lengthBytes: number): void {
    this.#isDirty = true
    this.#unsyncedBytes += lengthBytes
    if (this.#unsyncedBytes >= this.#groupBytes) void this.#plan().catch(() => undefined)
    else
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined
        void this.#plan().catch(() => undefined)
      }, this.#groupMs).unref()
  }

  /**
   * Resolves when everything that has been written is on the disk.
   * @throws unavailable where the disk refuses
   */
  async flush({ signal }: { signal: AbortSignal }): Promise<void> {
    if (this.#isDirty || this.#running !== undefined) await orAbort(this.#plan(), signal)
  }

  /** Resolves when what has been done so far is on the disk, or this process cannot get it there. Nothing is hurried. */
  async nextSync(): Promise<void> {
    this.noteWritten(0)
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer)
    const ended = new AbortController()
    await Promise.race([
      Promise.allSettled([this.#settling, this.flush(ended)]),
      sleep(closeMs, undefined, ended).catch(() => undefined),
    ])
    ended.abort()
    if (!this.#isInDoubt && !this.#isDirty && this.#running === undefined && !this.#hasLost)
      await this.#journal.noteClosed(this.#syncedEpoch).catch(() => undefined)
  }

  async #begin(): Promise<void> {
    try {
      await this.#journal.begin(this.#bootId, this.#syncedEpoch)
    } catch (error) {
      // The one before may say that nothing is in doubt, which ends here. Without one, everything is.
      await this.#journal.remove().catch(() => undefined)
      this.#log.warn('record of synced chunks cannot be written; all are checked after the next start', { error })
    }
  }

  /** The next sync, which begins when the one under way has ended. Those who ask meanwhile share it. */
  async #plan(): Promise<void> {
    this.#planned ??= (async () => {
      await this.#running?.catch(() => undefined)
      this.#planned = undefined
      const running = this.#sync()
      this.#running = running.catch(() => undefined)
      try {
        await running
      } finally {
        this.#running = undefined
      }
    })()
    await this.#planned
  }

  async #sync(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#isDirty = false
    this.#unsyncedBytes = 0
    const waiting = this.#waiting
    this.#waiting = []
    try {
      const epoch = this.#epochs.close()
      for (let waitedMs = 0; !this.#epochs.isQuiet(epoch); waitedMs += quietCheckMs) {
        if (waitedMs >= maxQuietMs) this.#hasLost = true
        if (this.#hasLost) throw new P2pfsError('timeout', 'writes of chunks do not end')
        await sleep(quietCheckMs)
      }
      await this.#syncFilesystem(this.#directory)
      if (this.#hasLost) throw new P2pfsError('unavailable', 'the disk has lost what was written')
      this.#syncedEpoch = epoch
    } catch (cause) {
      this.#isDirty = true
      // Otherwise the program could not be run, and the next sync does it.
      if (typeof (cause as { code?: unknown }).code === 'number') this.#hasLost = true
      if (!this.#hasWarned) this.#log.warn('chunks cannot be synced; a power loss would lose them', { error: cause })
      this.#hasWarned = true
      throw new P2pfsError('unavailable', `cannot sync the chunks: ${(cause as Error).message}`, { cause })
    } finally {
      for (const resolve of waiting) resolve()
    }
    // An epoch that is not noted only means that its files are checked once more than they have to be.
    if (!this.#isInDoubt) await this.#journal.noteSynced(this.#syncedEpoch).catch(() => undefined)
  }
}

async function currentBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
}
