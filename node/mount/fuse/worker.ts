import { readSync, writeSync } from 'node:fs'
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads'
import { chunkAt, chunkFlags, type BlockImage } from './block-image.ts'
import { ChunkFiles } from './chunk-files.ts'
import {
  encodeAttributes,
  encodeDirectory,
  encodeEntry,
  encodeInit,
  encodeReply,
  encodeStatfs,
  errnos,
  inHeaderBytes,
  maxReadBytes,
  opcodes,
  outHeaderBytes,
  rootNodeId,
  writeOutHeader,
  type Attributes,
} from './protocol.ts'
import { ReadCounters } from './read-counters.ts'

/** What the driver starts a worker with. */
export interface WorkerSetup {
  fd: number
  chunkDirectory: string
  counters: SharedArrayBuffer
  row: number
  /** Int32: raised by the driver after each message on `port`. */
  generation: SharedArrayBuffer
  port: MessagePort
}

/** From the driver: an image to serve, or the name of one that is served no more. */
export type ToWorker = { add: BlockImage } | { remove: string }

/** To the driver: a read that needs chunks which are not here; a reader at a read-ahead trigger; a reader that gave up. */
export type FromWorker = { miss: MissedRead } | { trigger: { name: string; chunk: number } } | { interrupt: bigint }

/** A read that no worker could answer. */
export interface MissedRead {
  /** The kernel's number of the request. */
  unique: bigint
  /** The image, and the bytes of it that are read. */
  name: string
  offset: number
  size: number
}

interface OpenImage {
  image: BlockImage
  number: number
  offsets: Float64Array
  digests: Buffer
  state: Uint8Array
  readOrder: Int32Array
}

const setup = workerData as WorkerSetup
const generation = new Int32Array(setup.generation)
const counters = new ReadCounters(setup.counters, setup.row)
const files = new ChunkFiles(setup.chunkDirectory)
/** By node id, of the directory and of the file. */
const images = new Map<number, OpenImage>()
const request = Buffer.alloc(128 * 1024)
const reply = Buffer.alloc(outHeaderBytes + maxReadBytes)
let seenGeneration = 0
let added = 0

const toDriver = (message: FromWorker): void => parentPort!.postMessage(message)

serve()

/** Takes requests until the mount is gone. */
function serve(): void {
  for (;;) {
    let length: number
    try {
      length = readSync(setup.fd, request)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      // ENOENT: the request was taken back before we had it.
      if (code === 'EINTR' || code === 'EAGAIN' || code === 'ENOENT') continue
      if (code === 'ENODEV') return
      throw error
    }
    if (length < inHeaderBytes) return
    const current = Atomics.load(generation, 0)
    if (current !== seenGeneration) update(current)
    handle(
      request.readUInt32LE(4),
      request.readBigUInt64LE(8),
      Number(request.readBigUInt64LE(16)),
      request.subarray(inHeaderBytes, length),
    )
  }
}

/** Takes up what the driver has posted since: all of it, for the number was raised after the post. */
function update(current: number): void {
  for (
    let received = receiveMessageOnPort(setup.port);
    received !== undefined;
    received = receiveMessageOnPort(setup.port)
  ) {
    const message = received.message as ToWorker
    if ('add' in message) {
      const { add: image } = message
      const open: OpenImage = {
        image,
        number: added++,
        offsets: new Float64Array(image.offsets),
        digests: Buffer.from(image.digests),
        state: new Uint8Array(image.state),
        readOrder: new Int32Array(image.readOrder),
      }
      images.set(image.nodeId, open)
      images.set(image.nodeId + 1, open)
    } else {
      for (const [nodeId, open] of images) if (open.image.name === message.remove) images.delete(nodeId)
    }
  }
  seenGeneration = current
}

function send(bytes: Buffer): void {
  try {
    writeSync(setup.fd, bytes)
  } catch (error) {
    // ENOENT: the reader was interrupted and is gone; ENODEV: so is the mount.
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOENT' && code !== 'ENODEV') throw error
  }
}

function handle(opcode: number, unique: bigint, nodeId: number, body: Buffer): void {
  const fail = (error: number): void => send(encodeReply(unique, error))
  const succeed = (bytes?: Buffer): void => send(encodeReply(unique, 0, bytes))
  switch (opcode) {
    case opcodes.read:
      read(unique, nodeId, Number(body.readBigUInt64LE(8)), body.readUInt32LE(16))
      return
    case opcodes.lookup: {
      const found = lookup(nodeId, body.toString('latin1', 0, body.length - 1))
      return found === undefined ? fail(errnos.ENOENT) : succeed(encodeEntry(found))
    }
    case opcodes.getattr: {
      const found = attributes(nodeId)
      return found === undefined ? fail(errnos.ENOENT) : succeed(encodeAttributes(found))
    }
    case opcodes.forget:
    case opcodes.batchForget:
      return
    case opcodes.interrupt:
      toDriver({ interrupt: body.readBigUInt64LE(0) })
      return
    case opcodes.open:
      // The kernel then opens without asking, and keeps its pages.
      return fail(errnos.ENOSYS)
    case opcodes.opendir:
      return succeed(Buffer.alloc(16))
    case opcodes.readdir:
      return succeed(encodeDirectory(directory(nodeId), Number(body.readBigUInt64LE(8)), body.readUInt32LE(16)))
    case opcodes.release:
    case opcodes.releasedir:
    case opcodes.flush:
    case opcodes.access:
    case opcodes.destroy:
      return succeed()
    case opcodes.statfs:
      return succeed(encodeStatfs())
    case opcodes.init:
      return succeed(encodeInit(body))
    default:
      return fail(errnos.ENOSYS)
  }
}

function attributes(nodeId: number): Attributes | undefined {
  if (nodeId === rootNodeId) return { nodeId, directory: true, sizeBytes: 0 }
  const open = images.get(nodeId)
  if (open === undefined) return undefined
  const directory = nodeId === open.image.nodeId
  return { nodeId, directory, sizeBytes: directory ? 0 : open.image.sizeBytes }
}

function lookup(parent: number, name: string): Attributes | undefined {
  if (parent !== rootNodeId)
    return name === 'rootfs.img' && images.get(parent)?.image.nodeId === parent ? attributes(parent + 1) : undefined
  for (const { image } of images.values()) if (image.name === name) return attributes(image.nodeId)
  return undefined
}

function directory(nodeId: number): { nodeId: number; directory: boolean; name: string }[] {
  const entries = [
    { nodeId, directory: true, name: '.' },
    { nodeId: rootNodeId, directory: true, name: '..' },
  ]
  if (nodeId !== rootNodeId) return [...entries, { nodeId: nodeId + 1, directory: false, name: 'rootfs.img' }]
  for (const [id, { image }] of images)
    if (id === image.nodeId) entries.push({ nodeId: id, directory: true, name: image.name })
  return entries
}

/** Answers from the chunk files; a read with a chunk that is not here goes to the driver whole. */
function read(unique: bigint, nodeId: number, offset: number, wanted: number): void {
  const open = images.get(nodeId)
  if (open === undefined) return send(encodeReply(unique, errnos.EIO))
  const { image, offsets, digests, state, number } = open
  const size = Math.max(0, Math.min(wanted, image.sizeBytes - offset, maxReadBytes))
  const first = chunkAt(offsets, offset)
  let done = 0
  for (let chunk = first; done < size; chunk++) {
    const start = offsets[chunk]!
    const length = offsets[chunk + 1]! - start
    const within = offset + done - start
    const piece = Math.min(length - within, size - done)
    if (!files.read(number, chunk, digests, length, reply, outHeaderBytes + done, piece, within)) {
      return toDriver({ miss: { unique, name: image.name, offset, size } })
    }
    done += piece
  }
  writeOutHeader(reply, outHeaderBytes + done, 0, unique)
  send(reply.subarray(0, outHeaderBytes + done))
  for (let chunk = first, at = offset; at < offset + done; chunk++) {
    const end = Math.min(offsets[chunk + 1]!, offset + done)
    const flags = counters.count(open, chunk, end - at)
    const { readAheadTrigger } = chunkFlags
    // Only the thread that clears the flag reports it.
    if ((flags & readAheadTrigger) !== 0 && (Atomics.and(state, chunk, ~readAheadTrigger) & readAheadTrigger) !== 0)
      toDriver({ trigger: { name: image.name, chunk } })
    at = end
  }
}
