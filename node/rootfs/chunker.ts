import { crc32 } from 'node:zlib'
import { blockBytes, ChunkTableBuilder, maxChunkBytes, type ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'

/*
 * These decide on chunk boundaries, so they are part of the format version. ARCHITECTURE.md, "Sharing", compares others.
 */
/** Runs from here on are cut into slices of their own, bytes. */
export const bigBytes = 128 * 1024
/** A pack of small files: at least, on average between, at most, bytes. */
const minPackBytes = 16 * 1024
const targetPackBytes = 64 * 1024
const maxPackBytes = 128 * 1024

/** Chunks that are being hashed or kept at once: enough for the disk's queue; with copies most of the memory of a layer, bytes. */
const maxInFlightBytes = 8 * 1024 * 1024
/** Above this hashing in libuv's thread pool is worth the hand-over, bytes. */
const pooledHashBytes = 64 * 1024

/**
 * Lays runs of file content into a data region and cuts it into chunks. A run begins on a block boundary. Large runs
 * are cut at fixed distances from their start; small ones are packed, and a pack ends after a run whose content says so:
 * the boundaries depend on what is near them, not on all that went before.
 */
export class Chunker {
  readonly #sink: ChunkSink
  readonly #table: { digest: Promise<Digest>; lengthBytes: number }[] = []
  readonly #inFlight = new Set<Promise<void>>()
  #inFlightBytes = 0
  #buffer: Buffer<ArrayBuffer> = Buffer.alloc(0)
  /** A buffer whose bytes were copied out. */
  #spare: Buffer<ArrayBuffer> | undefined
  #filled = 0
  #regionBytes = 0
  #big = false
  #runBytes = 0
  #runLeft = 0
  #crc = 0
  #failure: unknown

  constructor(sink: ChunkSink) {
    this.#sink = sink
  }

  /** Begins a run of exactly `lengthBytes`, at least 1. @returns its offset in the region */
  begin(lengthBytes: number): number {
    const padded = Math.ceil(lengthBytes / blockBytes) * blockBytes
    this.#big = lengthBytes >= bigBytes
    if (this.#big || this.#filled + padded > maxPackBytes) this.#cut()
    this.#runBytes = padded
    this.#runLeft = lengthBytes
    this.#crc = 0
    const offset = this.#regionBytes
    this.#regionBytes += padded
    return offset
  }

  /** Bytes of the run, in order; they are copied. */
  push(bytes: Buffer): void {
    this.#runLeft -= bytes.length
    if (!this.#big) this.#crc = crc32(bytes, this.#crc)
    for (let at = 0; at < bytes.length;) {
      if (this.#buffer.length === 0) this.#allocate()
      const length = Math.min(bytes.length - at, this.#buffer.length - this.#filled)
      bytes.copy(this.#buffer, this.#filled, at, at + length)
      this.#filled += length
      at += length
      if (this.#big && this.#filled === maxChunkBytes) this.#cut()
    }
  }

  /** Ends the run; all its bytes have been pushed. */
  end(): void {
    if (this.#runLeft !== 0) throw new TypeError(`run ended ${this.#runLeft} bytes short`)
    const padded = Math.ceil(this.#filled / blockBytes) * blockBytes
    this.#buffer.fill(0, this.#filled, padded)
    this.#filled = padded
    if (this.#big) this.#cut()
    else if (this.#filled >= minPackBytes && (this.#crc / 2 ** 32) * targetPackBytes < this.#runBytes) this.#cut()
  }

  /** Waits until there is room for more. @throws what the sink threw */
  async drain(): Promise<void> {
    while (this.#inFlightBytes >= maxInFlightBytes) await Promise.race(this.#inFlight)
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Cuts what is left and waits until all chunks are kept. @throws what the sink threw */
  async finish(): Promise<ChunkTable> {
    this.#cut()
    await Promise.all(this.#inFlight)
    if (this.#failure !== undefined) throw this.#failure
    const table = new ChunkTableBuilder()
    for (const { digest, lengthBytes } of this.#table) table.add(await digest, lengthBytes)
    return table.build()
  }

  #allocate(): void {
    const length = this.#big ? maxChunkBytes : maxPackBytes
    this.#buffer = this.#spare?.length === length ? this.#spare : Buffer.allocUnsafeSlow(length)
    this.#spare = undefined
  }

  #cut(): void {
    if (this.#filled === 0) return
    // A copy where much would be wasted: the sink may keep the bytes for a while.
    const used = this.#buffer.subarray(0, this.#filled)
    const bytes = this.#filled === this.#buffer.length ? used : Buffer.allocUnsafeSlow(this.#filled)
    if (bytes !== used) {
      used.copy(bytes)
      this.#spare = this.#buffer
    }
    this.#buffer = Buffer.alloc(0)
    this.#filled = 0
    const digest = sha256(bytes)
    const lengthBytes = bytes.length
    this.#table.push({ digest, lengthBytes })
    this.#inFlightBytes += lengthBytes
    const kept = digest
      .then(async (known) => await this.#sink.put(known, bytes))
      .catch((error: unknown) => {
        this.#failure ??= error
      })
      .finally(() => {
        this.#inFlight.delete(kept)
        this.#inFlightBytes -= lengthBytes
      })
    this.#inFlight.add(kept)
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Digest> {
  if (bytes.length < pooledHashBytes) return digestOf(bytes)
  return parseDigest(`sha256:${Buffer.from(await crypto.subtle.digest('SHA-256', bytes)).toString('hex')}`)
}
