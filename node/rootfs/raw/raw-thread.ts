import { hash } from 'node:crypto'
import { readSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { digestBytes, digestFromBytes } from '../../../protocol/digest.ts'
import { rawChunkBytes, rawChunkLength } from '../../../protocol/raw-image.ts'
import { ChunkFileWriter, type WrittenChunk } from '../../base/chunk-file-writer.ts'
import { isAllZero } from './raw-indexer.ts'
import type { FromRawThread, RawThreadSetup, ToRawThread } from './thread-messages.ts'

/** Chunks that are read with one call, and asked about in one message. */
const batchChunks = 32
/**
 * Batches that are in memory (with those chunks, 16 MiB): one is being hashed while answers about others are on their
 * way.
 */
const maxBatches = 4

/** How long an empty pipe is left alone (ms): a pipe of 64 KiB that is emptied once in this time carries 60 MB/s. */
const pipePauseMs = 1

/** Chunks that have been hashed and wait for the word on which of them to write. */
interface Batch {
  buffer: Buffer<ArrayBuffer>
  chunks: { start: number; lengthBytes: number; digest: Buffer }[]
}

const port = parentPort!
const { fd, sizeBytes: knownBytes, ranges, writing } = workerData as RawThreadSetup
const files = writing === undefined ? undefined : new ChunkFileWriter(writing)
const waiting = new Map<number, Batch>()
const spare = Array.from({ length: maxBatches }, () => Buffer.allocUnsafeSlow(batchChunks * rawChunkBytes))
let wake: (() => void) | undefined
let nextId = 0

const post = (message: FromRawThread): void => port.postMessage(message)
const zeroDigest = hash('sha256', Buffer.alloc(rawChunkBytes), 'buffer')
/** Whether a chunk of zeros is among those that have been asked about. */
let hasZeros = false

port.on('message', ({ batch: id, missing }: ToRawThread) => {
  const { buffer, chunks } = waiting.get(id)!
  waiting.delete(id)
  try {
    const written: WrittenChunk[] = []
    for (const [i, { start, lengthBytes, digest: digestAsBytes }] of chunks.entries()) {
      if (missing[i] !== 1) continue
      const digest = digestFromBytes(digestAsBytes)
      const changedAtMs = files!.write(digest, buffer.subarray(start, start + lengthBytes))
      written.push({ digest, lengthBytes, changedAtMs })
    }
    spare.push(buffer)
    if (written.length > 0) post({ written })
  } catch (error) {
    fail(error, 'write')
  }
  wake?.()
})

/** The digests of all chunks so far; more room is made where a pipe brings more. */
let all = new Uint8Array(Math.ceil((knownBytes ?? batchChunks * rawChunkBytes) / rawChunkBytes) * digestBytes)
let count = 0

function note(digest: Uint8Array): void {
  if ((count + 1) * digestBytes > all.length) {
    const larger = new Uint8Array(all.length * 2)
    larger.set(all)
    all = larger
  }
  all.set(digest, count++ * digestBytes)
}

async function main(): Promise<number> {
  if (knownBytes === undefined) return await readPipe()
  const total = Math.ceil(knownBytes / rawChunkBytes)
  for (const { first, end } of [...(ranges ?? [{ first: 0, end: total }]), { first: total, end: total }]) {
    if (first > count) await skip(first, knownBytes)
    for (let start = first; start < end; start += batchChunks) {
      const offset = start * rawChunkBytes
      const lengthBytes = Math.min(Math.min(end - start, batchChunks) * rawChunkBytes, knownBytes - offset)
      const buffer = await room()
      if (fill(buffer, lengthBytes, offset) < lengthBytes) throw new Error('the file has become shorter')
      take(buffer, lengthBytes, offset + lengthBytes)
    }
  }
  return knownBytes
}

async function readPipe(): Promise<number> {
  for (let offset = 0; ;) {
    const buffer = await room()
    const lengthBytes = await fillFromPipe(buffer)
    if (lengthBytes > 0) take(buffer, lengthBytes, (offset += lengthBytes))
    else spare.push(buffer)
    if (lengthBytes < buffer.length) return offset
  }
}

/** Waits for a buffer that is free. */
async function room(): Promise<Buffer<ArrayBuffer>> {
  for (;;) {
    const buffer = spare.pop()
    if (buffer !== undefined) return buffer
    await new Promise<void>((resolve) => {
      wake = resolve
    })
  }
}

/** Reads from this place on until the buffer has so many bytes, or the file ends. */
function fill(buffer: Buffer, lengthBytes: number, offset: number): number {
  let filled = 0
  while (filled < lengthBytes) {
    const read = readSync(fd, buffer, filled, lengthBytes - filled, offset + filled)
    if (read === 0) break
    filled += read
  }
  return filled
}

/** Reads until the buffer is full, or the pipe ends. Nobody can end a thread that waits in a read, so it does not. */
async function fillFromPipe(buffer: Buffer): Promise<number> {
  let filled = 0
  while (filled < buffer.length) {
    try {
      const read = readSync(fd, buffer, filled, buffer.length - filled, null)
      if (read === 0) break
      filled += read
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      await sleep(pipePauseMs)
    }
  }
  return filled
}

/** Hashes the chunks in the buffer, and asks about those that are no zeros. */
function take(buffer: Buffer<ArrayBuffer>, bytes: number, doneBytes: number): void {
  const chunks: Batch['chunks'] = []
  for (let start = 0; start < bytes; start += rawChunkBytes) {
    const lengthBytes = rawChunkLength(bytes - start)
    if (start + lengthBytes > bytes) buffer.fill(0, bytes, start + lengthBytes)
    const chunk = buffer.subarray(start, start + lengthBytes)
    const isZeros = lengthBytes === rawChunkBytes && isAllZero(chunk)
    const digest = isZeros ? zeroDigest : hash('sha256', chunk, 'buffer')
    note(digest)
    if (isZeros && hasZeros) continue
    hasZeros ||= isZeros
    chunks.push({ start, lengthBytes, digest })
  }
  ask({ buffer, chunks }, doneBytes)
}

/** Takes the chunks before `end` as zeros, without reading them. */
async function skip(end: number, imageBytes: number): Promise<void> {
  const chunks: Batch['chunks'] = []
  const buffer = await room()
  buffer.fill(0, 0, rawChunkBytes)
  while (count < end) {
    const lengthBytes = rawChunkLength(imageBytes - count * rawChunkBytes)
    const isWhole = lengthBytes === rawChunkBytes
    const digest = isWhole ? zeroDigest : hash('sha256', buffer.subarray(0, lengthBytes), 'buffer')
    note(digest)
    if (isWhole && hasZeros) continue
    hasZeros ||= isWhole
    chunks.push({ start: 0, lengthBytes, digest })
  }
  ask({ buffer, chunks }, Math.min(end * rawChunkBytes, imageBytes))
}

function ask(batch: Batch, doneBytes: number): void {
  const id = nextId++
  waiting.set(id, batch)
  const { chunks } = batch
  post({
    hashed: {
      id,
      digests: Uint8Array.from(
        Buffer.concat(
          chunks.map(({ digest }) => digest),
          chunks.length * digestBytes,
        ),
      ),
      lastLengthBytes: chunks.at(-1)?.lengthBytes ?? 0,
      doneBytes,
    },
  })
}

function fail(error: unknown, step: 'read' | 'write'): void {
  const { message, code } = error as NodeJS.ErrnoException
  post({ failed: { message, errno: code, step } })
  port.close()
}

async function settled(): Promise<void> {
  while (waiting.size > 0)
    await new Promise<void>((resolve) => {
      wake = resolve
    })
}

main().then(
  async (sizeBytes) => {
    await settled()
    post({ done: { digests: all.slice(0, count * digestBytes), sizeBytes } })
    port.close()
  },
  (error: unknown) => fail(error, 'read'),
)
