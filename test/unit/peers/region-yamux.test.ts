import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Stream, StreamMuxer } from '@libp2p/interface'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { regionYamux } from '../../../node/peers/region-yamux.ts'

const windowBytes = 256 * 1024

/** A stream between two muxers; `updates` counts the messages with which the reader opens its window, and nothing else. */
async function connect(): Promise<{ writer: Stream; reader: Stream; updates: () => number }> {
  const [near, far] = multiaddrConnectionPair()
  const sent = { updates: 0 }
  const send = far.send.bind(far)
  far.send = (data) => {
    const bytes = data.subarray()
    // A header of yamux: the type is a window update, without flags.
    if (bytes.length === 12 && bytes[1] === 1 && bytes[2] === 0 && bytes[3] === 0) sent.updates++
    return send(data)
  }
  const make = regionYamux(windowBytes, { enableKeepAlive: false })()
  const [writing, reading] = [near, far].map((end) => make.createStreamMuxer(end)) as [StreamMuxer, StreamMuxer]
  const accepted = new Promise<Stream>((resolve) =>
    reading.addEventListener('stream', ({ detail }) => resolve(detail), { once: true }),
  )
  const writer = await writing.createStream()
  const reader = await accepted
  return { writer, reader, updates: () => sent.updates }
}

test('the window of a stream is opened again when a quarter of it has been used, not for each message', async () => {
  const { writer, reader, updates } = await connect()
  const [count, messageBytes] = [600, 1000]
  const reading = (async () => {
    let read = 0
    for await (const message of readFrames(reader, messageBytes)) {
      assert.equal(message.length, messageBytes)
      if (++read === count) return
    }
  })()
  for (let i = 0; i < count; i++) await writeFrame(writer, [Buffer.alloc(messageBytes)])
  await reading
  const most = Math.ceil((count * (messageBytes + 2)) / (windowBytes / 4))
  assert.ok(updates() > 0 && updates() <= most, `${updates()} updates, ${most} at most`)
})

test('a message that is longer than the window passes', async () => {
  const { writer, reader } = await connect()
  const messageBytes = 5 * windowBytes
  const reading = readFrames(reader, messageBytes).next()
  await writeFrame(writer, [Buffer.alloc(9), Buffer.alloc(messageBytes - 9, 7)])
  const { value } = await reading
  assert.equal((value as Uint8Array).length, messageBytes)
})
