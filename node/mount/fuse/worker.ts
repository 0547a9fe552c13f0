import { readSync, writeSync } from 'node:fs'
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads'
import { answer, isUnknown } from './answer.ts'
import { chunkAt, chunkFlags, type BlockImage } from './block-image.ts'
import { ChunkFiles } from './chunk-files.ts'
import { ImageNodes, type ServedImage } from './image-nodes.ts'
import {
  encodeReply,
  errnos,
  inHeaderBytes,
  maxReadBytes,
  opcodes,
  outHeaderBytes,
  parseForgets,
  parseRead,
  parseRequest,
  writeOutHeader,
  type FuseRequest,
} from './protocol.ts'
import { ReadCounters } from './read-counters.ts'

/** A worker's input. */
export interface WorkerSetup {
  fd: number
  chunkDirectory: string
  counters: SharedArrayBuffer
  row: number
  /** Int32: raised by the driver after each message on `port`. */
  generation: SharedArrayBuffer
  port: MessagePort
}

/**
 * From the driver: an image to serve; the name of one that is to be hidden, or served no more; the users who may open
 * one.
 */
export type ToWorker =
  { add: BlockImage } | { hide: string } | { remove: string } | { owned: { name: string; uids: readonly number[] } }

/** A read that no worker could answer. */
export interface MissedRead {
  /** The kernel's number of the request. */
  unique: bigint
  /** The image, and the bytes of it that are read. */
  name: string
  offset: number
  size: number
}

/**
 * To the driver: a read that needs chunks which are not here; a request about an image that is not served; a reader at
 * a read-ahead trigger; a reader that gave up; an image that the kernel has dropped.
 */
export type FromWorker =
  | { miss: MissedRead }
  | { unknown: FuseRequest }
  | { trigger: { name: string; chunk: number } }
  | { interrupt: bigint }
  | { dropped: string }

const setup = workerData as WorkerSetup
const generation = new Int32Array(setup.generation)
const counters = new ReadCounters(setup.counters, setup.row)
const files = new ChunkFiles(setup.chunkDirectory)
const nodes = new ImageNodes()
const requestBuffer = Buffer.alloc(128 * 1024)
const reply = Buffer.alloc(outHeaderBytes + maxReadBytes)
let seenGeneration = 0

const toDriver = (message: FromWorker): void => parentPort!.postMessage(message)

serve()

/** Takes requests until the mount is gone. */
function serve(): void {
  for (;;) {
    let length: number
    try {
      length = readSync(setup.fd, requestBuffer)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      // ENOENT: the request was taken back before it was read.
      if (code === 'EINTR' || code === 'EAGAIN' || code === 'ENOENT') continue
      if (code === 'ENODEV') return
      throw error
    }
    if (length < inHeaderBytes) return
    const current = Atomics.load(generation, 0)
    if (current !== seenGeneration) update(current)
    const request = parseRequest(requestBuffer.subarray(0, length))
    try {
      handle(request)
    } catch {
      // A reader that gets no answer waits for good. If this request has had one, or gets none, the kernel ignores
      // this.
      if (request.opcode === opcodes.read) counters.countError()
      send(encodeReply(request.unique, errnos.EIO))
    }
  }
}

/** Takes up all that the driver has posted since: it raises the number after the post. */
function update(current: number): void {
  for (
    let received = receiveMessageOnPort(setup.port);
    received !== undefined;
    received = receiveMessageOnPort(setup.port)
  ) {
    const message = received.message as ToWorker
    if ('add' in message) nodes.add(message.add)
    else if ('remove' in message) nodes.delete(message.remove)
    else if ('owned' in message) nodes.setOwners(message.owned.name, message.owned.uids)
    else {
      const hidden = nodes.named(message.hide)
      if (hidden !== undefined) hidden.isHidden = true
    }
  }
  seenGeneration = current
}

/** @returns whether the kernel has taken it; throws if the reply is malformed: the request then still waits */
function send(bytes: Buffer): boolean {
  try {
    writeSync(setup.fd, bytes)
    return true
  } catch (error) {
    // ENOENT: the reader was interrupted and is gone; ENODEV: so is the mount.
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOENT' && code !== 'ENODEV') throw error
    return false
  }
}

function handle(request: FuseRequest): void {
  const { opcode, unique, nodeId, body } = request
  switch (opcode) {
    case opcodes.forget:
    case opcodes.batchForget:
      for (const forget of parseForgets(request)) drop(forget.nodeId, forget.lookups)
      return
    case opcodes.interrupt:
      return toDriver({ interrupt: body.readBigUInt64LE(0) })
  }
  // A copy: the buffer is used again.
  if (isUnknown(nodes, request)) return toDriver({ unknown: { ...request, body: Buffer.from(body) } })
  if (opcode === opcodes.read) return read(unique, nodes.at(nodeId)!, parseRead(body))
  const answered = answer(nodes, request)
  if ('error' in answered) send(encodeReply(unique, answered.error))
  else if (!send(encodeReply(unique, 0, answered.body)) && opcode === opcodes.lookup)
    drop(Number(answered.body.readBigUInt64LE(0)), 1)
}

/** The kernel gives back lookups of a node. */
function drop(nodeId: number, lookups: number): void {
  const served = nodes.at(nodeId)
  if (served?.dereference(lookups) === 0) toDriver({ dropped: served.image.name })
}

/** Answers from the chunk files; a read with a chunk that is not here goes to the driver whole. */
function read(unique: bigint, served: ServedImage, wanted: { offset: number; size: number }): void {
  const { image, offsets, state } = served
  const { offset } = wanted
  const size = Math.max(0, Math.min(wanted.size, image.sizeBytes - offset, maxReadBytes))
  const first = chunkAt(offsets, offset)
  let done = 0
  for (let chunk = first; done < size; chunk++) {
    const start = offsets[chunk]!
    const chunkBytes = offsets[chunk + 1]! - start
    const within = offset + done - start
    const lengthBytes = Math.min(chunkBytes - within, size - done)
    if (!files.read(served, { chunk, chunkBytes, within, lengthBytes }, reply, outHeaderBytes + done)) {
      return toDriver({ miss: { unique, name: image.name, offset, size } })
    }
    done += lengthBytes
  }
  writeOutHeader(reply, outHeaderBytes + done, 0, unique)
  send(reply.subarray(0, outHeaderBytes + done))
  for (let chunk = first, position = offset; position < offset + done; chunk++) {
    const end = Math.min(offsets[chunk + 1]!, offset + done)
    const flags = counters.count(served, chunk, end - position)
    const { readAheadTrigger } = chunkFlags
    // Only the thread that clears the flag reports it.
    if ((flags & readAheadTrigger) !== 0 && (Atomics.and(state, chunk, ~readAheadTrigger) & readAheadTrigger) !== 0)
      toDriver({ trigger: { name: image.name, chunk } })
    position = end
  }
}
