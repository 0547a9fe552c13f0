import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { silentLog } from '../../../node/base/log.ts'
import { ControlServer } from '../../../node/control/server.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { FakeOperations } from '../control/fake-operations.ts'

const folder = fileURLToPath(new URL('../../../cli/', import.meta.url))
/** Clears the screen, begins a line of its own, turns the direction of writing, and colours what follows. */
const hostile = 'evil\u001b[2J\r\nresult: the same\u202e\u009b31m\u007f\u2028'
const isHarmless = (text: string): boolean => !/[^\P{C}\n\p{Co}\p{Cn}]|[\p{Zl}\p{Zp}]/u.test(text)

interface Output {
  status: number
  stdout: string
  stderr: string
}

/** A daemon that answers with what `answer` makes, and the command line. */
async function commandLine(
  t: TestContext,
  answer: () => Promise<object>,
): Promise<(...argv: string[]) => Promise<Output>> {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const fake = new FakeOperations()
  fake.answer = answer
  const server = new ControlServer({ operations: fake.operations, log: silentLog }, { socket })
  await server.start()
  t.after(async () => await server.stop())
  return async (...argv) =>
    await new Promise((resolve) =>
      execFile(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', join(folder, 'main.ts'), ...argv, '--control', socket],
        { encoding: 'utf8' },
        (error, stdout, stderr) => resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr }),
      ),
    )
}

const amount = { bytes: 1, chunks: 1 }
const sources = { local: amount, peer: amount, neighbour: amount, registry: amount }
const mount = {
  directory: `/${hostile}`,
  reference: hostile,
  format: hostile,
  digest: hostile,
  manifestDigest: hostile,
  origin: 'local',
  resolution: 'registry',
  as: 'tree',
  writable: false,
  mountedAt: hostile,
  sizeBytes: 1,
  localBytes: 1,
  fetched: sources,
  warnings: [],
  wholeReads: [{ layer: hostile, reason: 'no-map', startedAt: hostile }],
}
const image = { reference: hostile, platform: hostile, format: hostile, digest: hostile, sizeBytes: 1, localBytes: 1 }
const status = {
  version: hostile,
  name: hostile,
  region: hostile,
  peerId: hostile,
  addresses: [hostile],
  access: 'everybody',
  strangers: { turnedAway: 1, dropped: 0 },
  members: 1,
  eventLoopDelayMs: { p50: 0.1, p99: 2.5, max: 12 },
  neighbours: [],
  guests: { connected: 0, sent: amount },
  limits: [
    {
      name: 'upload',
      rate: '80Mbit',
      isChanged: true,
      bytesPerSecond: 1,
      waiting: 1,
      waits: 2,
      urgentWaits: 1,
      urgentWaitedMs: 7,
    },
  ],
  peers: [
    {
      peer: hostile,
      name: hostile.repeat(50),
      addresses: [hostile],
      connectedSeconds: 1,
      bulk: 'idle',
      sent: amount,
      received: amount,
    },
  ],
  images: [image],
  pins: [{ reference: hostile, digest: hostile, extent: 'hot', until: hostile, job: hostile, sizeBytes: 1 }],
  hot: {
    isOn: true,
    counted: [
      {
        reference: hostile,
        platform: hostile,
        format: hostile,
        manifestDigest: hostile,
        digest: hostile,
        mounts: 3,
        hosts: 2,
        isHot: true,
      },
    ],
    usedBytes: 1,
    placedBytes: 2,
    diskBytes: 2,
  },
  seeds: [{ reference: hostile, doneBytes: 1, totalBytes: 1 }],
  imports: [{ reference: hostile, forPeers: 1, doneBytes: 1, totalBytes: 1 }],
  mounts: [mount],
  served: sources,
  storeBytes: 1,
  evicted: amount,
  fetched: sources,
  readAtRandom: { requests: 1, bytes: 1 },
  readErrors: 1,
  waitingReads: {
    count: 2,
    slow: 1,
    longest: [
      {
        images: [hostile],
        rootfs: hostile,
        chunk: hostile,
        waitedSeconds: 34.2,
        failsInSeconds: 25.8,
        asked: [{ peer: hostile, name: hostile.repeat(50) }],
        refusals: [{ peer: hostile, code: hostile }],
        registry: hostile,
        failure: hostile,
      },
    ],
  },
  sent: amount,
}
const seedJob = {
  ...image,
  id: hostile,
  manifestDigest: hostile,
  hot: true,
  copies: [hostile],
  state: 'placing',
  verifiedCopies: 1,
  startsAt: hostile,
  endsAt: hostile,
  acceptedBy: hostile,
  keepers: [hostile],
  hosts: [
    {
      peer: hostile,
      name: hostile.repeat(50),
      extent: 'full',
      state: 'failed',
      code: hostile,
      held: 1,
      verified: 1,
      total: 2,
    },
  ],
}
const results: Record<string, { argv: string[]; result: object }> = {
  status: { argv: ['status'], result: status },
  inspect: {
    argv: ['inspect', 'debian'],
    result: {
      ...image,
      layers: [{ diffId: hostile, entries: { [hostile]: 1 } }],
      sharing: [{ ...image, sharedBytes: 1, sharedChunks: 1 }],
      config: { Env: [hostile] },
    },
  },
  verify: {
    argv: ['verify', 'debian'],
    result: {
      ...image,
      manifestDigest: hostile,
      same: true,
      uses: [
        {
          source: 'host',
          digest: hostile,
          rootfs: 'same',
          maker: hostile,
          own: false,
          accepted: true,
          error: hostile,
          layers: [{ diffId: hostile, digest: hostile, chunks: 'same', index: 'same', map: 'same' }],
        },
      ],
    },
  },
  seed: {
    argv: ['seed', 'debian'],
    result: { ...image, published: { digest: hostile, sizeBytes: 1, key: hostile, existed: false } },
  },
  'seed --copies': { argv: ['seed', 'debian', '--copies', '2'], result: { ...seedJob, placed: true } },
  seeds: { argv: ['seeds'], result: { seeds: [seedJob] } },
  'seeds cancel': { argv: ['seeds', 'cancel', '0'.repeat(32)], result: seedJob },
  import: { argv: ['import', '/source', 'app'], result: image },
  export: { argv: ['export', 'debian', '/file'], result: { file: hostile, sizeBytes: 1, digest: hostile } },
  mount: {
    argv: ['mount', 'debian', '/dir'],
    result: {
      ...mount,
      rootfs: hostile,
      unanswered: hostile,
      restricted: { options: [hostile], reason: hostile },
      config: { Labels: { [hostile]: hostile } },
    },
  },
  reset: { argv: ['reset', '/dir'], result: { rootfs: hostile, restricted: { options: [], reason: hostile } } },
}

for (const [command, { argv, result }] of Object.entries(results)) {
  test(`p2pfs ${command} writes others’ text as text, for people and as JSON`, async (t) => {
    const p2pfs = await commandLine(t, async () => await Promise.resolve(result))
    for (const more of [[], ['--json']]) {
      const { stdout, stderr, status: exit } = await p2pfs(...argv, ...more)
      assert.equal(exit, 0, stderr)
      for (const text of [stdout, stderr]) assert.ok(isHarmless(text), JSON.stringify(text))
      assert.ok(stdout.includes('evil'))
      assert.ok(!/^result: the same/m.test(stdout), 'no line of its own')
      if (more.length > 0) assert.deepEqual(JSON.parse(stdout), result)
    }
  })
}

test('p2pfs seed ends with 1, and says who holds what, where the wanted copies are not there', async (t) => {
  const p2pfs = await commandLine(t, async () => await Promise.resolve({ ...seedJob, id: 'the-id', placed: false }))
  const { stdout, status: exit } = await p2pfs('seed', 'debian', '--copies', '2', '--wait')
  assert.equal(exit, 1)
  assert.match(stdout, /1 of 2 chunks held/)
  assert.match(stdout, /^the wanted copies are not there: 1 verified; .* p2pfs seeds cancel the-id$/m)
  assert.equal((await p2pfs('seed', 'debian', '--copies', '2', '--json')).status, 1)
})

test('an error of the daemon with others’ text in it is one harmless line', async (t) => {
  const p2pfs = await commandLine(t, async () => {
    throw new P2pfsError('unavailable', `${hostile}${'x'.repeat(1_000_000)}`)
  })
  for (const argv of Object.values(results).map((command) => command.argv)) {
    const { stdout, stderr, status: exit } = await p2pfs(...argv)
    assert.equal(exit, 1)
    assert.equal(stdout, '')
    assert.ok(isHarmless(stderr) && stderr.length < 5000, JSON.stringify(stderr.slice(0, 6000)))
    assert.equal(stderr.split('\n').length, 2)
  }
})

test('a peer’s name takes a part of a line at most', async (t) => {
  const p2pfs = await commandLine(
    t,
    async () =>
      await Promise.resolve({ ...status, peers: [{ ...status.peers[0], peer: 'id', name: 'n'.repeat(10_000) }] }),
  )
  assert.match((await p2pfs('status')).stdout, /^ {2}n{64}… \(9936 more\) \(id\) for 1 s/m)
})

test('commands write through one file, and nowhere else', () => {
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.ts') && file !== 'output.ts'))
    assert.doesNotMatch(readFileSync(join(folder, name), 'utf8'), /process\.std(?:out|err)\.write|console\./, name)
})

test('status says how many reads wait, the longest, for whom, and when they fail', async (t) => {
  const longest = {
    images: ['debian:12'],
    rootfs: 'sha256:r',
    chunk: 'sha256:c',
    waitedSeconds: 34.2,
    failsInSeconds: 25.8,
    asked: [{ peer: 'id-b', name: 'host-b' }, { peer: 'id-c' }],
    refusals: [{ peer: 'id-d', name: 'host-d', code: 'busy' }],
    registry: 'asked',
  }
  const run = await commandLine(
    t,
    async () =>
      await Promise.resolve({ ...status, readErrors: 3, waitingReads: { count: 7, slow: 2, longest: [longest] } }),
  )
  const { stdout } = await run('status')
  assert.match(stdout, /^waiting {7}7 reads, 2 of them for 2 s or more; 3 have failed with an I\/O error$/m)
  assert.match(
    stdout,
    /^ {2}debian:12: for 34 s, fails in 26 s; waits for host-b, id-c, the registry \(host-d: busy\)$/m,
  )
})
