import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { createLog, type Log } from '../../../node/base/log.ts'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import { parseMirror } from '../../../node/registry/mirrors.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import {
  createClient,
  descriptor,
  fails,
  impatient,
  layer,
  signal,
  startRegistry,
  type Client,
} from '../../support/registry/fault-client.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const json = '{"schemaVersion":2,"manifests":[]}'

interface Servers extends Client {
  origin: FaultRegistry
  mirrors: FaultRegistry[]
  /** Requests since the last time: of the origin, then of the mirrors. */
  asked: () => number[]
  lines: string[]
}

/** A registry with mirrors, all of which have the layer and the manifest. */
async function start(t: TestContext, count: number, timeouts = {}): Promise<Servers> {
  const origin = await startRegistry(t)
  const mirrors = await Promise.all(Array.from({ length: count }, async () => await startRegistry(t)))
  const all = [origin, ...mirrors]
  for (const server of all) server.addManifest('lab/app', 'latest', json, mediaTypes.ociIndex)
  const lines: string[] = []
  const log: Log = createLog('info', (line) => void lines.push(line))
  const client = createClient(t, origin.authority, {
    log,
    timeouts,
    mirrors: mirrors.map((mirror) => `${origin.authority}=http://${mirror.authority}`),
  })
  const asked = (): number[] => all.map(({ front }) => front.log.splice(0).length)
  return { ...client, origin, mirrors, asked, lines }
}

test('mirrors are asked in their order, and the registry not at all as long as one works', async (t) => {
  const { blob, range, registry, reference, asked } = await start(t, 2)
  assert.deepEqual(await blob(), layer)
  assert.deepEqual(await range(10, 20), layer.subarray(10, 20))
  assert.equal((await registry.manifest(reference, { signal })).json, json)
  assert.deepEqual(asked(), [0, 3, 0])
})

test('a mirror that fails is not asked for a while, longer each time, then tried again by one request', async (t) => {
  const { range, clock, mirrors, asked, lines } = await start(t, 1)
  const remove = mirrors[0]!.faults.add({ status: 503 })
  const read = async (): Promise<void> => assert.deepEqual(await range(10, 20), layer.subarray(10, 20))
  await read()
  await read()
  assert.deepEqual(asked(), [2, 1])
  assert.equal(lines.length, 1)
  assert.match(lines[0]!, /registry mirror fails; it is not asked for a while.*"seconds":30/)
  clock.nowMs += 31_000
  await Promise.all([read(), read(), read()])
  assert.deepEqual(asked(), [3, 1])
  clock.nowMs += 31_000
  await read()
  assert.deepEqual(asked(), [1, 0], 'twice as long the second time')
  remove()
  clock.nowMs += 31_000
  await read()
  await read()
  assert.deepEqual(asked(), [0, 2])
  assert.match(lines.at(-1)!, /registry mirror works again/)
  assert.deepEqual(clock.slept, [], 'the next server is asked at once')
})

test('whatever a mirror does wrong, the next one or the registry goes on where it stopped', async (t) => {
  for (const fault of [
    { closeAfterBytes: 1_000_000 },
    { truncateAfterBytes: 1_000_000 },
    { stallAfterBytes: 1_000_000 },
    { status: 404 },
    { status: 403 },
    { status: 429, retryAfter: 9999 },
    { shiftRangeBytes: 7 },
  ] as const) {
    const { blob, range, mirrors, origin } = await start(t, 2, impatient)
    mirrors[0]!.faults.add(fault)
    mirrors[1]!.faults.add(fault)
    assert.deepEqual(await blob(), layer)
    for (const mirror of mirrors) mirror.faults.add(fault)
    assert.deepEqual(await range(1000, 2_500_000), layer.subarray(1000, 2_500_000))
    const sent = [origin, ...mirrors].map(({ front }) =>
      front.log.reduce((sum, { bodyBytesSent }) => sum + bodyBytesSent, 0),
    )
    assert.ok(sent[0]! >= layer.length / 4)
  }
})

test('a mirror that is down, in either way, costs one try', async (t) => {
  const { range, mirrors, asked } = await start(t, 2, { headersMs: 3000 })
  await mirrors[0]!.front.reject()
  mirrors[1]!.faults.add({ drop: true })
  for (let i = 0; i < 3; i++) assert.deepEqual(await range(10, 20), layer.subarray(10, 20))
  assert.deepEqual(asked(), [3, 0, 1])
})

test('what a mirror lacks is asked of the registry; the mirror stays in use', async (t) => {
  const { registry, reference, range, mirrors, asked, lines } = await start(t, 1)
  mirrors[0]!.faults.add({ path: /manifests/, status: 404 })
  assert.equal((await registry.manifest(reference, { signal })).json, json)
  await range(0, 10)
  assert.deepEqual(asked(), [1, 2])
  assert.deepEqual(lines, [])
})

test('wrong bytes of a mirror are refused, and next time come from the registry', async (t) => {
  const { registry, reference, blob, range, mirrors, asked } = await start(t, 1)
  mirrors[0]!.faults.add({ corruptByteAt: 1 })
  await assert.rejects(blob(), fails('invalid', /does not match/))
  assert.deepEqual(await blob(), layer)
  assert.deepEqual(asked(), [1, 1])
  const again = await start(t, 1)
  again.mirrors[0]!.faults.add({ corruptByteAt: 1 })
  assert.notDeepEqual(await again.range(0, 10), layer.subarray(0, 10))
  const past = await again.registry.range(
    again.reference,
    descriptor,
    { start: 0, end: 10 },
    { signal, originOnly: true },
  )
  assert.deepEqual(Buffer.from(past), layer.subarray(0, 10))
  // A manifest by digest is checked at once, and comes from the registry with the same call.
  const digest = (await registry.manifest(reference, { signal })).digest
  assert.equal(
    await registry.manifestByDigest(reference, { digest, mediaType: '', sizeBytes: json.length }, { signal }),
    json,
  )
  assert.equal((await range(0, 1)).length, 1)
})

test('a push goes to the registry itself', async (t) => {
  const { registry, reference, asked } = await start(t, 1)
  await registry.pushBlob(reference, Buffer.from('x'), { signal })
  const [origin, mirror] = asked()
  assert.ok(origin! > 0)
  assert.equal(mirror, 0)
})

test('credentials of a registry do not go to its mirror', async (t) => {
  const origin = await startRegistry(t, { access: { kind: 'basic' }, users: [{ username: 'u', password: 'p' }] })
  const mirror = await startRegistry(t, { access: { kind: 'basic' }, users: [{ username: 'm', password: 'm' }] })
  const looked: string[] = []
  const find = async (
    host: string,
  ): Promise<{ username: string; password: string; identityToken: undefined } | undefined> => {
    looked.push(host)
    return host === origin.authority ? { username: 'u', password: 'p', identityToken: undefined } : undefined
  }
  const { range } = createClient(t, origin.authority, {
    credentials: { find },
    mirrors: [`${origin.authority}=http://${mirror.authority}`],
  })
  assert.deepEqual(await range(0, 10), layer.subarray(0, 10))
  assert.deepEqual(looked, [mirror.authority, origin.authority])
  assert.ok(mirror.front.log.every(({ authorized }) => !authorized))
})

test('reads what a user types for a mirror', () => {
  assert.deepEqual(parseMirror('docker.io=https://mirror.example/hub'), {
    registry: 'docker.io',
    url: new URL('https://mirror.example/hub'),
  })
  assert.equal(parseMirror('index.docker.io=https://m').registry, 'docker.io')
  for (const wrong of [
    '',
    'docker.io',
    'docker.io=',
    '=https://m',
    'docker.io=mirror',
    'docker.io=ftp://m',
    'docker.io=https://u:p@m',
    'a/b=https://m',
    'a=https://m?x=1',
  ]) {
    assert.throws(() => parseMirror(wrong), fails('invalid', /not a mirror.*docker\.io=https:\/\/mirror\.example/))
  }
})

test('a mirror may live below a path', async (t) => {
  const mirror = await startRegistry(t)
  const { range } = createClient(t, 'registry.example', {
    mirrors: [`registry.example=http://${mirror.authority}/hub/`],
  })
  mirror.front.pathPrefix = '/hub'
  assert.deepEqual(await range(0, 10), layer.subarray(0, 10))
})

test('a registry is named by a mirror of its own, by credentials and by the operator, and not by what is for any', async (t) => {
  const directory = temporaryDirectory(t)
  for (const [name, text] of [
    ['_default', '[host."https://any.example"]'],
    ['file.example', '[host."https://mirror.example"]'],
    ['port.example_5000_', 'server = "https://server.example"'],
    ['empty.example', ''],
  ] as const) {
    mkdirSync(join(directory, name))
    writeFileSync(join(directory, name, 'hosts.toml'), text)
  }
  const { source } = createClient(t, 'insecure.example', {
    mirrors: ['option.example=https://mirror.example'],
    hostsDirectories: [directory],
    forOthers: { named: ['named.example:5000', 'index.docker.io'] },
    credentials: {
      find: async () => undefined,
      names: async (registry, { repository }) => registry === 'login.example' && repository === 'team/app',
    },
  })
  const named = async (text: string): Promise<boolean> => await source.isNamed(parseReference(text))
  for (const text of [
    'option.example/app',
    'file.example/app',
    'port.example:5000/app',
    'named.example:5000/app',
    'login.example/team/app',
    'debian',
  ])
    assert.equal(await named(text), true, text)
  for (const text of [
    'insecure.example/app',
    'empty.example/app',
    'port.example/app',
    'named.example/app',
    'named.example:22/app',
    'login.example/app',
    'mirror.example/app',
    'local:app',
    'oci:/srv/layout',
  ])
    assert.equal(await named(text), false, text)
})
