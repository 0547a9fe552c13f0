import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ratesOf } from '../../../cli/watch/rates.ts'
import { Screen } from '../../../cli/watch/screen.ts'
import { watch, type WatchParts } from '../../../cli/watch/watch.ts'
import type { SeedJobReport, Status } from '../../../node/control/api.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

const amount = (bytes: number): { bytes: number; chunks: number } => ({ bytes, chunks: 1 })
const sources = (bytes: number) => ({
  local: amount(bytes),
  peer: amount(2 * bytes),
  neighbour: amount(0),
  registry: amount(3 * bytes),
})

/** A status whose counters stand at multiples of `bytes`. */
function statusAt(bytes: number, more: Partial<Status> = {}): Status {
  return {
    daemonPid: 1,
    name: 'host',
    region: 'lab',
    uptimeSeconds: 1,
    members: 2,
    served: sources(bytes),
    fetched: sources(bytes),
    sent: amount(bytes),
    peers: [
      { peer: 'a', name: 'host-a', received: amount(bytes), sent: amount(0) },
      { peer: 'b', name: 'host-b', received: amount(7), sent: amount(7) },
    ],
    imports: [{ reference: 'r/import', forPeers: 1, doneBytes: bytes, totalBytes: 10_240 }],
    seeds: [],
    mounts: [{ directory: '/vm', reference: 'r/app', localBytes: 512, sizeBytes: 1024 }],
    ...more,
  } as unknown as Status
}

/** A clock that is as late as its waits say, and a daemon that answers with one status after another. */
async function looks(
  answers: (Status | Error)[],
  seeds: SeedJobReport[] = [],
): Promise<{ frames: string[]; lost: string[] }> {
  const ended = new AbortController()
  const frames: string[] = []
  const lost: string[] = []
  let nowMs = 0
  const parts: WatchParts = {
    status: async () => {
      const answer = answers.shift()!
      if (answers.length === 0) ended.abort()
      return await (answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer))
    },
    seeds: async () => await Promise.resolve(seeds),
    describeWaiting: () => ['one read waits'],
    show: (lines) => frames.push(lines.join('\n')),
    showLost: (message) => lost.push(message),
    clock: {
      now: () => nowMs,
      after: (ms, call) => {
        nowMs += ms
        queueMicrotask(call)
        return () => undefined
      },
    },
  }
  await watch(parts, { signal: ended.signal })
  return { frames, lost }
}

test('rates are what passed since the last look, by source and peer', async () => {
  const { frames } = await looks([statusAt(0), statusAt(1024), statusAt(1024), statusAt(0)])
  assert.equal(frames.length, 4)
  assert.match(frames[0]!, /^reads {9}here 0 B\/s, peers 0 B\/s, registry 0 B\/s$/m)
  assert.match(frames[1]!, /^reads {9}here 1\.0 KiB\/s, peers 2\.0 KiB\/s, registry 3\.0 KiB\/s$/m)
  assert.match(frames[1]!, /^sent {10}1\.0 KiB\/s to peers$/m)
  assert.match(frames[1]!, /^ {2}host-a: from it 1\.0 KiB\/s, to it 0 B\/s$/m)
  assert.ok(!frames[1]!.includes('host-b'), 'a peer that nothing passes to or from is not shown')
  assert.match(frames[1]!, /^one read waits$/m)
  assert.match(frames[2]!, /^sent {10}0 B\/s to peers$/m)
})

test('what is left of imports, seeds and mounts is shown', async () => {
  const job = {
    reference: 'r/seed',
    state: 'placing',
    verifiedCopies: 1,
    copies: 3,
    hosts: [
      { total: 10, verified: 4 },
      { total: 10, verified: 10 },
    ],
  } as unknown as SeedJobReport
  const seeds = (doneBytes: number): Partial<Status> => ({
    seeds: [{ reference: 'r/own', doneBytes, totalBytes: 4096 }],
  })
  const { frames } = await looks(
    [statusAt(0, seeds(0)), statusAt(1024, seeds(1024)), statusAt(2048, seeds(2048))],
    [job],
  )
  assert.match(frames[1]!, /^ {2}r\/import: import 10 %, 1\.0 KiB of 10\.0 KiB, 1\.0 KiB\/s, 9 s left$/m)
  assert.match(frames[1]!, /^ {2}r\/own: fetch 25 %, .* 3 s left$/m)
  assert.match(frames[1]!, /^ {2}r\/seed: 1 of 3 copies verified, 6 chunks left on 2 hosts$/m)
  assert.match(frames[1]!, /^ {2}\/vm: r\/app, 50 % here, 512 B left$/m)
})

test('a daemon that goes away is waited for, and one that was never there is an error', async () => {
  const gone = new P2pfsError('unavailable', 'no daemon')
  const { frames, lost } = await looks([statusAt(0), gone, statusAt(0, { daemonPid: 2 }), statusAt(0)])
  assert.deepEqual([frames.length, lost], [3, ['no daemon']])
  await assert.rejects(looks([gone, statusAt(0)]), /no daemon/)
})

test('the counters of a new daemon begin at zero', () => {
  const rates = ratesOf(statusAt(5000), statusAt(1000, { daemonPid: 2 }), 2)
  assert.equal(rates.served.local, 500)
  assert.equal(rates.peers['a']!.received, 500)
})

test('a screen is redrawn in place, cut to its size, and given back', () => {
  const written: string[] = []
  const screen = new Screen({ columns: 10, rows: 3, write: (text) => written.push(text) })
  screen.close()
  assert.equal(written.length, 0, 'what was not taken is not given back')
  screen.draw(['a'.repeat(20), 'evil\x1b[2J', 'third', 'fourth'])
  screen.draw(['x'])
  screen.close()
  screen.close()
  assert.ok(written[0]!.startsWith('\x1b[?1049h\x1b[?25l'))
  assert.ok(written[0]!.includes(`${'a'.repeat(10)}\x1b[K`) && !written[0]!.includes('a'.repeat(11)))
  assert.ok(!written[0]!.includes('\x1b[2J') && !written[0]!.includes('third'))
  assert.ok(written[1]!.startsWith('\x1b[Hx\x1b[K') && !written[1]!.includes('1049'))
  assert.deepEqual(written.slice(2), ['\x1b[?25h\x1b[?1049l'])
})
