import { readSync, writeSync } from 'node:fs'
import type { Log } from '../base/log.ts'
import type { Credentials } from './credential-store.ts'

/** Begins the header: what is not of this form is nobody's. */
const magic = Buffer.from('p2pfs c1')
/** `magic`, the slot that counts, and the bytes in it. */
const headerBytes = 16
/** Most that is handed on (bytes): hundreds of mounts with tokens of a few KiB; the oldest are left out. */
const slotBytes = 1024 * 1024

type WriteSync = (fd: number, bytes: Uint8Array, offset: number, length: number, position: number) => number

/** A caller, and what stands with his credentials: a mount, by its id. */
export interface HeldCaller {
  holder: string
  repository: string
  registry: string
  credentials: Credentials
}

/**
 * Credentials of mounts that the next daemon of this host gets: in anonymous memory, which ends with the last process that has
 * its descriptor (`service/anonymous-memory.ts`). A daemon that is killed at any instruction leaves what it saved last.
 */
export class CallerMemory {
  readonly #log: Log
  readonly #writeSync: WriteSync
  readonly #fd: number
  #slot = 0
  readonly #lengths = [0, 0]

  /** @param fd of a file that can grow, and that no path leads to */
  constructor({ log, write = writeSync }: { log: Log; write?: WriteSync }, fd: number) {
    this.#log = log
    this.#writeSync = write
    this.#fd = fd
  }

  /** The callers that were saved last, the oldest first; none where they cannot be read. */
  load(): HeldCaller[] {
    try {
      const header = this.#read(0, headerBytes)
      if (!header.subarray(0, magic.length).equals(magic)) return []
      const [slot, length] = [header.readUInt32LE(magic.length), header.readUInt32LE(magic.length + 4)]
      if (slot > 1 || length > slotBytes) return []
      this.#slot = slot
      this.#lengths[slot] = length
      return (JSON.parse(this.#read(offsetOf(slot), length).toString()) as unknown[]).filter(isHeldCaller)
    } catch {
      return []
    }
  }

  /** Replaces what was saved; nothing stays of what is not held any more. Where that fails the log says so. */
  save(callers: readonly HeldCaller[]): void {
    try {
      this.#save(callers)
    } catch (error) {
      this.#log.warn('credentials of mounts cannot be kept for the next daemon', { code: codeOf(error) })
    }
  }

  #save(callers: readonly HeldCaller[]): void {
    const kept = [...callers]
    let bytes = Buffer.from(JSON.stringify(kept))
    while (bytes.length > slotBytes) {
      kept.splice(0, Math.ceil(kept.length / 8))
      bytes = Buffer.from(JSON.stringify(kept))
    }
    const before = this.#slot
    const slot = 1 - before
    this.#write(bytes, offsetOf(slot))
    const header = Buffer.alloc(headerBytes)
    magic.copy(header)
    header.writeUInt32LE(slot, magic.length)
    header.writeUInt32LE(bytes.length, magic.length + 4)
    this.#write(header, 0)
    const leftBytes = this.#lengths[slot]! - bytes.length
    if (leftBytes > 0) this.#write(Buffer.alloc(leftBytes), offsetOf(slot) + bytes.length)
    this.#write(Buffer.alloc(this.#lengths[before]!), offsetOf(before))
    this.#slot = slot
    this.#lengths[slot] = bytes.length
    this.#lengths[before] = 0
  }

  #read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length)
    readSync(this.#fd, bytes, 0, length, offset)
    return bytes
  }

  #write(bytes: Uint8Array, offset: number): void {
    for (let done = 0; done < bytes.length;)
      done += this.#writeSync(this.#fd, bytes, done, bytes.length - done, offset + done)
  }
}

/** Slots begin at a page each. */
const offsetOf = (slot: number): number => 4096 + slot * slotBytes

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code

/** Another version may have saved it. */
function isHeldCaller(value: unknown): value is HeldCaller {
  const { holder, repository, registry, credentials } = value as Partial<Record<keyof HeldCaller, unknown>>
  const { username, password, identityToken = '', registryToken = '' } = (credentials ?? {}) as Record<string, unknown>
  const texts = [holder, repository, registry, username, password, identityToken, registryToken]
  return texts.every((text) => typeof text === 'string')
}
