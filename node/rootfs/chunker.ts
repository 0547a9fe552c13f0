import { crc32 } from 'node:zlib'
import { blockBytes, ChunkTableBuilder, maxChunkBytes, type ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf } from '../../protocol/digest.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import type { ChunkBuffers } from './chunk-buffers.ts'
import { PutsInFlight } from './puts-in-flight.ts'

/*
 * These numbers decide on chunk boundaries, so they belong to the format version. ARCHITECTURE.md, "Sharing", compares
 * others.
 */
/** Runs of this length and more are cut into slices of their own, bytes. */
export const bigBytes = 128 * 1024
/** From this length on a pack of small files may end with any run, bytes. */
const minPackBytes = 16 * 1024
/** A run ends its pack with the probability of its own length divided by this, bytes. */
const targetPackBytes = 64 * 1024
/** Greatest length of a pack, bytes. */
const maxPackBytes = 128 * 1024

/** Buffers of chunks that are being kept at once, bytes: what a registry of 10 Gbit/s brings in two milliseconds. */
const maxInFlightBytes = 2 * 1024 * 1024

/**
 * Lays runs of file content into a data segment and cuts it into chunks. A run begins on a block boundary. Large runs
 * are cut at fixed distances from their start. Small ones are packed, and the content of a run decides whether the pack
 * ends with it. So a boundary depends on the runs near it, not on all that went before.
 */
export class Chunker {
  readonly #sink: ChunkSink
  readonly #buffers: ChunkBuffers
  readonly #table = new ChunkTableBuilder()
  readonly #puts = new PutsInFlight({ maxBytes: maxInFlightBytes })
  #buffer: Buffer | undefined
  #filled = 0
  #segmentBytes = 0
  #big = false
  #runBytes = 0
  #runLeft = 0
  #crc = 0

  constructor(sink: ChunkSink, buffers: ChunkBuffers) {
    this.#sink = sink
    this.#buffers = buffers
  }

  /** Begins a run of exactly `lengthBytes`, at least 1. @returns its offset in the segment */
  begin(lengthBytes: number): number {
    const padded = Math.ceil(lengthBytes / blockBytes) * blockBytes
    this.#big = lengthBytes >= bigBytes
    if (this.#big || this.#filled + padded > maxPackBytes) this.#cut()
    this.#runBytes = padded
    this.#runLeft = lengthBytes
    this.#crc = 0
    const offset = this.#segmentBytes
    this.#segmentBytes += padded
    return offset
  }

  /** Copies bytes of the run, in order. */
  push(bytes: Buffer): void {
    this.#runLeft -= bytes.length
    if (!this.#big) this.#crc = crc32(bytes, this.#crc)
    for (let offset = 0; offset < bytes.length;) {
      this.#buffer ??= this.#buffers.take()
      const length = Math.min(bytes.length - offset, maxChunkBytes - this.#filled)
      bytes.copy(this.#buffer, this.#filled, offset, offset + length)
      this.#filled += length
      offset += length
      if (this.#big && this.#filled === maxChunkBytes) this.#cut()
    }
  }

  /** Ends the run; all its bytes have been pushed. */
  end(): void {
    if (this.#runLeft !== 0) throw new TypeError(`run ended ${this.#runLeft} bytes short`)
    const padded = Math.ceil(this.#filled / blockBytes) * blockBytes
    this.#buffer?.fill(0, this.#filled, padded)
    this.#filled = padded
    if (this.#big) this.#cut()
    else if (this.#filled >= minPackBytes && (this.#crc / 2 ** 32) * targetPackBytes < this.#runBytes) this.#cut()
  }

  /** Waits until there is room for more. @throws the sink's error */
  async drain(): Promise<void> {
    await this.#puts.room()
  }

  /** Ends the last chunk and waits until all chunks are kept. @throws the sink's error */
  async finish(): Promise<ChunkTable> {
    this.#cut()
    await this.#puts.settled()
    return this.#table.build()
  }

  #cut(): void {
    if (this.#buffer === undefined || this.#filled === 0) return
    const bytes = this.#buffer.subarray(0, this.#filled)
    this.#buffer = undefined
    this.#filled = 0
    const digest = digestOf(bytes)
    this.#table.add(digest, bytes.length)
    this.#puts.add(maxChunkBytes, this.#sink.put(digest, bytes))
  }
}
