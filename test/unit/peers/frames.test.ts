import assert from 'node:assert/strict'
import { createRawHost } from '../../support/raw-host.ts'
import { test, type TestContext } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { settled, streamPair } from './fake-region.ts'
import { until } from './test-peer.ts'

/** Two hosts with one stream; the reader is called with its end. */
async function connect(t: TestContext, read: (stream: Stream) => Promise<void>): Promise<Stream> {
  const [reader, writer] = [await createRawHost({ listen: ['/ip4/127.0.0.1/tcp/0'] }), await createRawHost()]
  await reader.handle('/test', read)
  for (const host of [reader, writer]) {
    await host.start()
    t.after(async () => await host.stop())
  }
  return await writer.dialProtocol(reader.getMultiaddrs(), '/test')
}

test('messages are read however their bytes are cut', async () => {
  const messages = [0, 1, 127, 128, 300, 20_000].map((length) => Buffer.alloc(length, length))
  const [near, far] = streamPair()
  const sent: Uint8Array[] = []
  const send = (bytes: Uint8Array | Iterable<Uint8Array>): number =>
    sent.push(...(bytes instanceof Uint8Array ? [bytes] : bytes))
  const collecting = { send, writeBufferLength: 0, status: 'open' }
  for (const message of messages)
    await writeFrame(collecting as unknown as Stream, [message.subarray(0, 5), message.subarray(5)])
  const bytes = Buffer.concat(sent)
  for (const pieceBytes of [1, 2, 3, 1000, bytes.length]) {
    for (let i = 0; i < bytes.length; i += pieceBytes) far.send(bytes.subarray(i, i + pieceBytes))
    const frames = readFrames(near as unknown as Stream, 20_000)
    for (const message of messages) assert.deepEqual(Buffer.from((await frames.next()).value as Uint8Array), message)
  }
})

test('a message that is too long, one whose length has no end, and one that is cut short are refused', async () => {
  for (const [bytes, code] of [
    ['e907', 'invalid'],
    ['ffffffffff01', 'invalid'],
    ['0501', 'unavailable'],
    ['80', 'unavailable'],
  ] as const) {
    const [near, far] = streamPair()
    far.send(Buffer.from(bytes, 'hex'))
    await far.close()
    await assert.rejects(readFrames(near as unknown as Stream, 1000).next(), (error) => isP2pfsError(error, code))
  }
})

test('messages that came before the other side closed are all read, however slow the reader is', async (t) => {
  const [go, done] = [Promise.withResolvers<undefined>(), Promise.withResolvers<number[]>()]
  const stream = await connect(t, async (end) => {
    const lengths: number[] = []
    for await (const { length } of readFrames(end, 1024)) {
      lengths.push(length)
      await go.promise
    }
    done.resolve(lengths)
  })
  await writeFrame(stream, [Buffer.alloc(1)])
  await until('the first is read', () => stream.writeBufferLength === 0)
  await new Promise((resolve) => setTimeout(resolve, 50))
  for (const length of [2, 3]) await writeFrame(stream, [Buffer.alloc(length)])
  await stream.close()
  await new Promise((resolve) => setTimeout(resolve, 50))
  go.resolve(undefined)
  assert.deepEqual(await done.promise, [1, 2, 3])
})

test('a writer is held up every time that its reader is, not only the first time', async (t) => {
  const messageBytes = 256 * 1024
  let allowed = 0
  let read = 0
  let wake = Promise.withResolvers<undefined>()
  const stream = await connect(t, async (end) => {
    for await (const _ of readFrames(end, messageBytes)) {
      read++
      while (read >= allowed) await wake.promise
    }
  })
  let written = 0
  const write = async (): Promise<void> => {
    for (; written < 400; written++) await writeFrame(stream, [Buffer.alloc(messageBytes)])
  }
  void write().catch(() => undefined)
  for (const more of [20, 40, 60]) {
    allowed = more
    wake.resolve(undefined)
    wake = Promise.withResolvers()
    await until('as many are read as are allowed', () => read === more)
    await new Promise((resolve) => setTimeout(resolve, 100))
    // Windows of the stream and buffers of the connection hold 16 MiB at most.
    assert.ok(written - read <= 64, `${written} were written, ${read} read`)
  }
  stream.abort(new Error('the end'))
})

test('a writer waits on where the connection takes more, and the stream does not', async () => {
  const [near] = streamPair()
  near.isFull = true
  let isOver = false
  const writing = writeFrame(near as unknown as Stream, [Buffer.alloc(1)]).then(() => (isOver = true))
  await settled()
  near.dispatchEvent(new Event('drain'))
  await settled()
  assert.equal(isOver, false)
  near.drain()
  await writing
})

test('a writer that waits ends with the signal', async () => {
  const [near] = streamPair()
  near.isFull = true
  const abort = new AbortController()
  const writing = assert.rejects(writeFrame(near as unknown as Stream, [Buffer.alloc(1)], { signal: abort.signal }), {
    name: 'AbortError',
  })
  await settled()
  abort.abort()
  await writing
})
