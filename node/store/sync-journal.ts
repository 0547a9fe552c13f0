import { open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { digestHex, digestOf } from '../../protocol/digest.ts'
import { syncDirectory } from '../base/sync-directory.ts'

/** From this length on the journal is begun anew (bytes): a thousand syncs or so. */
const maxJournalBytes = 64 * 1024
/** Hexadecimal digits of a line's checksum. */
const checksumLength = 16

/** The state of the chunk files of a directory. */
export interface SyncState {
  /** The boot since whose begin nothing on the disk is in doubt; undefined where the journal cannot be read. */
  bootId: string | undefined
  /** Chunk files of this epoch, and of those before, are on the disk. */
  syncedEpoch: number
  /** All chunk files were on the disk when the store was closed, and nothing has been written since. */
  isClosed: boolean
}

/**
 * The record of what has been synced: a file of lines, each with a checksum; the last one that is whole counts. Losing
 * lines at its end is safe: then more is checked than has to be.
 *
 *     CHECKSUM open BOOT-ID EPOCH CHECKSUM synced EPOCH CHECKSUM closed EPOCH
 */
export class SyncJournal {
  readonly #path: string
  #isBegun = false
  #bootId = ''
  #lengthBytes = 0

  constructor({ path }: { path: string }) {
    this.#path = path
  }

  /** @returns undefined where there is no journal */
  async read(): Promise<SyncState | undefined> {
    try {
      return parse(await readFile(this.#path, 'utf8'))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }

  /** Begins the journal anew. Resolves when that is on the disk. */
  async begin(bootId: string, syncedEpoch: number): Promise<void> {
    this.#isBegun = false
    this.#bootId = bootId
    const line = Buffer.from(lineOf(`open ${bootId} ${syncedEpoch}`))
    const temporary = `${this.#path}.new`
    {
      await using file = await open(temporary, 'w', 0o600)
      await file.writeFile(line)
      await file.datasync()
    }
    await rename(temporary, this.#path)
    await syncDirectory(dirname(this.#path))
    this.#lengthBytes = line.length
    this.#isBegun = true
  }

  /**
   * Notes what has been synced. It is not on the disk when this resolves: the next sync puts it there.
   * Nothing is noted before {@link begin}.
   */
  async noteSynced(epoch: number): Promise<void> {
    if (!this.#isBegun) return
    if (this.#lengthBytes >= maxJournalBytes) await this.begin(this.#bootId, epoch)
    else await this.#append(`synced ${epoch}`, { isDurable: false })
  }

  /** Notes that everything has been synced, and nothing is written any more. Resolves when that is on the disk. */
  async noteClosed(epoch: number): Promise<void> {
    if (this.#isBegun) await this.#append(`closed ${epoch}`, { isDurable: true })
  }

  /** Removes the journal, so that everything is in doubt. Resolves when that is on the disk. */
  async remove(): Promise<void> {
    this.#isBegun = false
    await rm(this.#path, { force: true })
    await syncDirectory(dirname(this.#path))
  }

  async #append(record: string, { isDurable }: { isDurable: boolean }): Promise<void> {
    const line = Buffer.from(lineOf(record))
    await using file = await open(this.#path, 'r+')
    await file.write(line, 0, line.length, this.#lengthBytes)
    if (isDurable) await file.datasync()
    this.#lengthBytes += line.length
  }
}

function lineOf(record: string): string {
  return `${checksumOf(record)} ${record}\n`
}

function checksumOf(record: string): string {
  return digestHex(digestOf(Buffer.from(record))).slice(0, checksumLength)
}

function parse(journal: string): SyncState {
  const state: SyncState = { bootId: undefined, syncedEpoch: 0, isClosed: false }
  // Text after the last end of a line is torn.
  for (const line of journal.split('\n').slice(0, -1)) {
    const record = line.slice(checksumLength + 1)
    if (line !== lineOf(record).trimEnd()) break
    const [kind, ...fields] = record.split(' ')
    if (kind === 'open') state.bootId = fields[0]
    // A journal without its begin says nothing.
    if (state.bootId === undefined) break
    state.syncedEpoch = Number(fields.at(-1))
    state.isClosed = kind === 'closed'
  }
  return state
}
