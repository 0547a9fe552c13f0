import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { encodeAnswerHeader, encodeComing, parseWants, type WantPriority } from '../../../protocol/messages/chunk.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { ChunkStream } from '../../../node/peers/chunk/stream.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { PeerStanding } from '../../../node/peers/peer-standing.ts'
import { FakeClock, settled } from '../../support/fake-clock.ts'
import { streamPair } from './fake-region.ts'

const bytes = new Uint8Array(4096)
const digest = digestOf(bytes)

/** A peer that answers as a test has it, and the stream over which it is asked. */
function askedPeer() {
  const clock = new FakeClock()
  const [near, far] = streamPair() as unknown as [Stream, Stream]
  const comingSamples: number[] = []
  const stream = new ChunkStream(Promise.resolve(near), {
    peer: { id: 'a', standing: new PeerStanding({ now: clock.now }) },
    clock,
    latency: { add: () => undefined },
    comingLatency: { add: (ms) => void comingSamples.push(ms) },
    onLie: (error) => assert.fail(error),
  })
  const { signal } = new AbortController()
  return {
    clock,
    comingSamples,
    /** Asks for the chunk. @returns how it ended, once it has: `chunk`, or the code of the error */
    want: (priority: WantPriority, kind: 'held' | 'relay' = 'held'): { end?: string } => {
      const outcome: { end?: string } = {}
      const relay = kind === 'relay' ? { relay: { urgency: new Urgency(false), depth: 1 } } : {}
      stream.fetch(digest, bytes.length, { signal, priority, stallMs: 5_000, ...relay }).then(
        () => (outcome.end = 'chunk'),
        (error: unknown) => (outcome.end = isP2pfsError(error) ? error.code : 'unknown'),
      )
      return outcome
    },
    tell: async (message: Uint8Array): Promise<void> => {
      await writeFrame(far, [message])
      await settled()
    },
    deliver: async (id: number): Promise<void> => {
      await writeFrame(far, [encodeAnswerHeader(id, 'chunk'), bytes])
      await settled()
    },
    wants: readFrames(far, 1 << 20),
  }
}

const overtaking = 70

for (const [what, first, later, end] of [
  [
    'a want that the peer leaves aside is given up when 64 later ones of its priority are answered',
    'boot',
    'boot',
    'timeout',
  ],
  ['a want waits while those that go first are answered', 'boot', 'demand', undefined],
  ['a want that goes first is given up when 64 later ones are answered', 'demand', 'background', 'timeout'],
] as const)
  test(what, async () => {
    const { want, deliver } = askedPeer()
    const outcome = want(first)
    for (let id = 1; id <= overtaking; id++) want(later)
    for (let id = 1; id <= overtaking; id++) await deliver(id)
    assert.equal(outcome.end, end)
  })

test('a want that the peer has to get itself waits, however many others are answered', async () => {
  const { want, deliver } = askedPeer()
  const outcome = want('boot', 'relay')
  for (let id = 1; id <= overtaking; id++) want('boot')
  for (let id = 1; id <= overtaking; id++) await deliver(id)
  assert.equal(outcome.end, undefined)
  await deliver(0)
  assert.equal(outcome.end, 'chunk')
})

test('one message that many chunks are coming is one sample of how long that takes', async () => {
  const { want, tell, clock, comingSamples, wants } = askedPeer()
  for (let id = 0; id < 50; id++) want('boot', 'relay')
  const { value } = await wants[Symbol.asyncIterator]().next()
  assert.equal(parseWants(value as Uint8Array).length, 50)
  await clock.pass(40)
  const [first, ...more] = Array.from({ length: 50 }, (_, id) => id)
  await tell(encodeComing([first!, ...more]))
  await tell(encodeComing([first!, ...more]))
  assert.deepEqual(comingSamples, [40])
})
