import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestHex } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { answer, isUnknown } from '../../../node/mount/fuse/answer.ts'
import { createBlockImage, nodeIdOf } from '../../../node/mount/fuse/block-image.ts'
import { ImageNodes } from '../../../node/mount/fuse/image-nodes.ts'
import { opcodes, parseForgets, parseRequest, rootNodeId } from '../../../node/mount/fuse/protocol.ts'
import { ReadCounters } from '../../../node/mount/fuse/read-counters.ts'
import { readThrough } from '../../../node/mount/fuse/read-through.ts'
import { chunkBytes, chunkOf, rootfsOf } from './mount-fakes.ts'

const { manifest, digest } = rootfsOf(0, 1, 2)
const name = digestHex(digest)
const nodeId = nodeIdOf(digest)

const request = (opcode: number, node: number, text: string): Parameters<typeof answer>[1] => ({
  opcode,
  unique: 1n,
  nodeId: node,
  uid: 0,
  body: Buffer.from(`${text}\0`),
})

const nodeIdIn = (answered: ReturnType<typeof answer>): number | undefined =>
  'body' in answered ? Number(answered.body.readBigUInt64LE(0)) : undefined

test('an image is found by name until it is hidden, and by node id until it is deleted', () => {
  const nodes = new ImageNodes()
  const served = nodes.add(createBlockImage(manifest, digest))
  const lookup = (parent: number, text: string): number | undefined =>
    nodeIdIn(answer(nodes, request(opcodes.lookup, parent, text)))
  assert.equal(lookup(rootNodeId, name), nodeId)
  assert.equal(lookup(nodeId, 'rootfs.img'), nodeId + 1)
  assert.equal(lookup(nodeId + 1, 'rootfs.img'), undefined)
  assert.equal(lookup(rootNodeId, 'other'), undefined)
  assert.equal(served.references, 2)
  served.isHidden = true
  assert.equal(lookup(rootNodeId, name), undefined)
  assert.equal(nodes.entries(rootNodeId).length, 2)
  assert.equal(lookup(nodeId, 'rootfs.img'), nodeId + 1)
  nodes.add(createBlockImage(manifest, digest))
  assert.equal(lookup(rootNodeId, name), nodeId)
  nodes.delete(name)
  for (const id of [nodeId, nodeId + 1]) assert.ok(isUnknown(nodes, request(opcodes.getattr, id, '')))
  assert.equal(isUnknown(nodes, request(opcodes.getattr, rootNodeId, '')), false)
})

/** An OPEN of the file, or an access(2) with this mode, by a user. */
const asked = (nodes: ImageNodes, opcode: number, node: number, uid: number, mode = 0): ReturnType<typeof answer> => {
  const body = Buffer.alloc(8)
  body.writeUInt32LE(mode, 0)
  return answer(nodes, { opcode, unique: 1n, nodeId: node, uid, body })
}

test('an image file opens for root and its owners; the kernel keeps its pages', () => {
  const nodes = new ImageNodes()
  nodes.add(createBlockImage(manifest, digest))
  const opens = (uid: number): boolean => 'body' in asked(nodes, opcodes.open, nodeId + 1, uid)
  const nobody = 2 ** 32 - 1
  assert.deepEqual([0, 1000, nobody].map(opens), [true, false, false])
  nodes.setOwners(name, [1000, 1001])
  assert.deepEqual([0, 1000, 1001, 1002, nobody].map(opens), [true, true, true, false, false])
  assert.deepEqual(nodes.owners(), [{ name, uids: [1000, 1001] }])
  nodes.setOwners(name, [])
  assert.equal(opens(1000), false)
  nodes.setOwners('unknown', [1000])
  const opened = asked(nodes, opcodes.open, nodeId + 1, 0)
  assert.ok('body' in opened)
  assert.equal(opened.body.readUInt32LE(8) & 2, 2, 'FOPEN_KEEP_CACHE')
  assert.ok(
    isUnknown(new ImageNodes(), { opcode: opcodes.open, unique: 1n, nodeId: nodeId + 1, uid: 0, body: opened.body }),
  )
})

test('access(2) says of an image file what an open would, and nothing against its directories', () => {
  const nodes = new ImageNodes()
  nodes.add(createBlockImage(manifest, digest))
  nodes.setOwners(name, [1000])
  const [read, write, execute] = [4, 2, 1]
  const may = (node: number, uid: number, mode: number): boolean =>
    'body' in asked(nodes, opcodes.access, node, uid, mode)
  for (const uid of [0, 1000])
    assert.deepEqual(
      [0, read, write, execute, read | execute].map((mode) => may(nodeId + 1, uid, mode)),
      [true, true, false, false, false],
    )
  assert.equal(may(nodeId + 1, 1001, read), false)
  for (const node of [rootNodeId, nodeId]) assert.ok(may(node, 1001, read | execute))
})

test('the user of a request is read from its header', () => {
  const bytes = Buffer.alloc(48)
  bytes.writeUInt32LE(1000, 24)
  bytes.writeUInt32LE(2000, 28)
  assert.equal(parseRequest(bytes).uid, 1000)
})

test('all threads count references together, and lookups of an earlier daemon do not make them negative', () => {
  const image = createBlockImage(manifest, digest)
  const [first, second] = [new ImageNodes().add(image), new ImageNodes().add(image)]
  for (const served of [first, second, second]) served.reference()
  assert.equal(first.dereference(2), 1)
  assert.equal(second.dereference(5), 0)
  assert.equal(first.references, 0)
})

test('lookups that the kernel gives back come one by one or in a batch', () => {
  const one = Buffer.alloc(48)
  one.writeUInt32LE(opcodes.forget, 4)
  one.writeBigUInt64LE(7n, 16)
  one.writeBigUInt64LE(3n, 40)
  assert.deepEqual(parseForgets(parseRequest(one)), [{ nodeId: 7, lookups: 3 }])
  const batch = Buffer.alloc(40 + 8 + 2 * 16)
  batch.writeUInt32LE(opcodes.batchForget, 4)
  batch.writeUInt32LE(2, 40)
  for (const [i, value] of [7n, 3n, 9n, 1n].entries()) batch.writeBigUInt64LE(value, 48 + i * 8)
  assert.deepEqual(parseForgets(parseRequest(batch)), [
    { nodeId: 7, lookups: 3 },
    { nodeId: 9, lookups: 1 },
  ])
  batch.writeUInt32LE(1000, 40)
  assert.throws(() => parseForgets(parseRequest(batch)), RangeError)
})

test('a read gets exactly its bytes, or fails if a chunk does not have its length', async () => {
  const served = new ImageNodes().add(createBlockImage(manifest, digest))
  const counters = new ReadCounters(ReadCounters.allocate(0), 0)
  const { signal } = new AbortController()
  const wanted = { offset: chunkBytes - 100, size: chunkBytes + 200 }
  const whole = { miss: async (_name: string, chunk: number) => chunkOf(chunk) }
  assert.deepEqual(
    Buffer.concat(await readThrough(served, wanted, whole, counters, signal)),
    Buffer.concat([chunkOf(0), chunkOf(1), chunkOf(2)]).subarray(wanted.offset, wanted.offset + wanted.size),
  )
  for (const damaged of [Buffer.alloc(0), chunkOf(1).subarray(0, 1000), Buffer.alloc(chunkBytes + 1)]) {
    const handler = { miss: async (_name: string, chunk: number) => (chunk === 1 ? damaged : chunkOf(chunk)) }
    await assert.rejects(readThrough(served, wanted, handler, counters, signal), (error) =>
      isP2pfsError(error, 'invalid'),
    )
  }
})
