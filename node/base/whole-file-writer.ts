import { randomBytes } from 'node:crypto'
import { closeSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Writes files that are whole whenever they are there: under a temporary name, then renamed. For threads that may block;
 * nothing is synced. The memory is the caller's again when a write returns.
 */
export class WholeFileWriter {
  readonly #temporary: string
  readonly #prefix = randomBytes(6).toString('hex')
  #written = 0

  /** @param options `temporary`: a directory of the same filesystem */
  constructor({ temporary }: { temporary: string }) {
    this.#temporary = temporary
  }

  /** @throws what the disk throws; nothing is left behind then */
  write(path: string, bytes: Uint8Array): void {
    const temporary = join(this.#temporary, `${this.#prefix}-${this.#written++}`)
    try {
      const file = openSync(temporary, 'wx', 0o600)
      try {
        for (let offset = 0; offset < bytes.length;) offset += writeSync(file, bytes, offset)
      } finally {
        closeSync(file)
      }
      renameSync(temporary, path)
    } catch (error) {
      try {
        unlinkSync(temporary)
      } catch {
        // It was not made.
      }
      throw error
    }
  }
}
