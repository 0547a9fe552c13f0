import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { inspect } from 'node:util'
import { createLog } from '../../../node/base/log.ts'
import { Caller } from '../../../node/registry/caller.ts'
import type { Credentials } from '../../../node/registry/credential-store.ts'
import { HeldCallers } from '../../../node/registry/held-callers.ts'
import { HttpRegistry } from '../../../node/registry/http-registry.ts'
import { ImageSource } from '../../../node/registry/image-source.ts'
import { OciLayout } from '../../../node/registry/oci-layout.ts'
import { formatReference, parseReference, type Reference } from '../../../node/registry/reference.ts'
import {
  createClient,
  fails,
  FakeClock,
  readAll,
  signal,
  type ClientOptions,
} from '../../support/registry/fault-client.ts'
import { serve } from '../../support/registry/serve.ts'
import { answer, assertImage, layer, layerDescriptor } from '../../support/registry/small-image.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const secret = 'hunter2'
const header = (username: string, password: string): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
const user = (username: string, password = secret): Credentials => ({ username, password, identityToken: undefined })
/** The same reference, by somebody with credentials of his own, or by nobody. */
const by = (reference: Reference, credentials: Credentials | undefined): Reference => {
  assert.equal(reference.kind, 'registry')
  const registry = reference.kind === 'registry' ? reference.registry : ''
  return { ...reference, caller: new Caller(registry, credentials) }
}

interface Registry {
  host: string
  /** All that has been shown to it and to its token service. */
  seen: string[]
  /** Users with the right to read; they may be changed. */
  readers: Set<string>
  tokens: number
}

/** A registry whose users have the password `hunter2`, with Basic authentication, or with a token service. */
async function startRegistry(t: TestContext, kind: 'basic' | 'bearer'): Promise<Registry> {
  const registry: Registry = { host: '', seen: [], readers: new Set(['a', 'daemon']), tokens: 0 }
  const readerOf = ({ headers }: IncomingMessage): string | undefined =>
    [...registry.readers].find((name) => headers.authorization === header(name, secret))
  registry.host = await serve(t, (request, response) => {
    registry.seen.push(JSON.stringify([request.method, request.url, request.headers]))
    if (request.url?.startsWith('/token') === true) {
      registry.tokens++
      const reader = readerOf(request)
      return void response.writeHead(reader === undefined ? 401 : 200).end(JSON.stringify({ token: `of-${reader}` }))
    }
    const [, bearer = ''] = /^Bearer of-(.+)$/.exec(request.headers.authorization ?? '') ?? []
    const isIn = kind === 'basic' ? readerOf(request) !== undefined : registry.readers.has(bearer)
    if (isIn) return answer(request, response)
    const how = kind === 'basic' ? 'Basic realm="r"' : `Bearer realm="http://${request.headers.host}/token",service="s"`
    response.writeHead(401, { 'www-authenticate': how }).end()
  })
  return registry
}

for (const kind of ['basic', 'bearer'] as const) {
  test(`an image is read with the credentials of whoever asks, and the right of one is not that of another, ${kind}`, async (t) => {
    const { host } = await startRegistry(t, kind)
    const { source, reference } = createClient(t, host)
    for (let again = 0; again < 2; again++) {
      await assertImage(source, by(reference, user('a')))
      for (const wrong of [user('b'), user('a', 'wrong'), undefined]) {
        await assert.rejects(
          source.resolve(by(reference, wrong), 'linux/amd64', { signal }),
          fails('denied', /--authfile/),
        )
        await assert.rejects(source.topDigest(by(reference, wrong), { signal }), { code: 'denied' })
        await assert.rejects(source.checkAccess(by(reference, wrong), { signal }), { code: 'denied' })
        await assert.rejects(readAll(source.openLayer(by(reference, wrong), layerDescriptor, { signal })), {
          code: 'denied',
        })
      }
      await assert.rejects(source.resolve(reference, 'linux/amd64', { signal }), fails('denied', /docker login/))
    }
  })

  test(`who brings credentials, or asks as nobody, is not helped by those of the daemon, ${kind}`, async (t) => {
    const { host, seen } = await startRegistry(t, kind)
    const { source, reference } = createClient(t, host, { credentials: { find: async () => user('daemon') } })
    // The daemon has a token, or has sent its password, before.
    await assertImage(source, reference)
    seen.length = 0
    for (const wrong of [user('b'), undefined])
      await assert.rejects(source.checkAccess(by(reference, wrong), { signal }), { code: 'denied' })
    assert.ok(!seen.join().includes(header('daemon', secret)) && !seen.join().includes('of-daemon'), seen.join())
  })
}

test('a token is asked for once for each caller', async (t) => {
  const registry = await startRegistry(t, 'bearer')
  registry.readers.add('b')
  const { source, reference } = createClient(t, registry.host)
  for (const name of ['a', 'b', 'a', 'b']) await source.checkAccess(by(reference, user(name)), { signal })
  assert.equal(registry.tokens, 2)
})

test('access is proven with one request, and by no mirror', async (t) => {
  const { host, seen } = await startRegistry(t, 'basic')
  const mirror = await serve(t, answer)
  const { source, reference } = createClient(t, host, { mirrors: [`${host}=http://${mirror}`] })
  const caller = by(reference, user('a'))
  await source.checkAccess(caller, { signal })
  seen.length = 0
  await source.checkAccess(caller, { signal })
  assert.equal(seen.length, 1)
  await assert.rejects(source.checkAccess(by(reference, undefined), { signal }), { code: 'denied' })
  await assert.rejects(source.topDigest(by(reference, undefined), { signal }), { code: 'denied' })
})

/** Reads the image in all ways, whatever comes of it. */
async function readAllOf(source: ImageSource, reference: Reference): Promise<void> {
  const options = { signal }
  await Promise.allSettled([
    source.resolve(reference, 'linux/amd64', options),
    source.checkAccess(reference, options),
    source.referrers(reference, layerDescriptor.digest, undefined, options),
    readAll(source.openLayer(reference, layerDescriptor, options)),
    source.range(reference, layerDescriptor, { start: 0, end: 100 }, options),
    source.pushBlob(reference, layer, options),
  ])
}

test('the credentials of a caller reach no mirror, nothing that the registry redirects to, and no other registry', async (t) => {
  for (const kind of ['basic', 'bearer'] as const)
    for (const address of ['127.0.0.1', '127.0.0.2']) {
      const other: string[] = []
      const show = ({ url, headers }: IncomingMessage): void => void other.push(JSON.stringify([url, headers]))
      const mirror = await serve(t, (request, response) => {
        show(request)
        response.writeHead(401, { 'www-authenticate': 'Basic' }).end()
      })
      const target = await serve(
        t,
        (request, response) => {
          show(request)
          // It asks for credentials, and names a token service of its own.
          const challenge = kind === 'basic' ? 'Basic' : `Bearer realm="http://${request.headers.host}/token"`
          response.writeHead(401, { 'www-authenticate': challenge }).end()
        },
        address,
      )
      const host = await serve(t, (request, response) => {
        if (request.url?.startsWith('/token') === true) return void response.end('{"token":"hunter2"}')
        const isIn = /^(Bearer hunter2|Basic .+)$/.test(request.headers.authorization ?? '')
        const challenge = kind === 'basic' ? 'Basic' : `Bearer realm="http://${request.headers.host}/token"`
        if (!isIn) response.writeHead(401, { 'www-authenticate': challenge }).end()
        else response.writeHead(307, { location: `http://${target}${request.url}` }).end()
      })
      const asked: string[] = []
      const find = async (registry: string): Promise<Credentials | undefined> => {
        asked.push(registry)
        return await Promise.resolve(user('daemon'))
      }
      const options: ClientOptions = { credentials: { find }, mirrors: [`${host}=http://${mirror}`] }
      const { source, reference } = createClient(t, host, options)
      await readAllOf(source, by(reference, user('a')))
      assert.ok(other.length > 0, 'it was redirected')
      assert.doesNotMatch(other.join(), /authorization|hunter2/)
      assert.deepEqual(asked, [], 'nor are those of the daemon sent in their place')
    }
})

test('headers that hosts.toml gives for a server are not lent to a caller', async (t) => {
  const seen: string[] = []
  const host = await serve(t, (request, response) => {
    seen.push(JSON.stringify(request.headers))
    if (request.headers['x-key'] === secret) return answer(request, response)
    response.writeHead(401, { 'www-authenticate': 'Basic' }).end()
  })
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, host))
  writeFileSync(join(directory, host, 'hosts.toml'), `server = "http://${host}"\n[header]\nx-key = "${secret}"\n`)
  const { source, reference } = createClient(t, host, { hostsDirectories: [directory] })
  await assertImage(source, reference)
  seen.length = 0
  await assert.rejects(source.checkAccess(by(reference, undefined), { signal }), { code: 'denied' })
  assert.doesNotMatch(seen.join(), /hunter2/)
})

test('a caller, and a reference with one, has no form that shows his credentials; errors and logs have none', async (t) => {
  const lines: string[] = []
  const log = createLog('debug', (line) => lines.push(line))
  const host = await serve(t, (request, response) => {
    response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token"` }).end()
  })
  const { source, reference } = createClient(t, host, { log })
  const credentials = [user('someone'), { username: '', password: '', identityToken: secret }]
  for (const given of credentials) {
    const caller = by(reference, given)
    const { caller: who } = caller as { caller?: Caller }
    const failed = await source.resolve(caller, 'linux/amd64', { signal }).catch((error: unknown) => error)
    log.error('request failed', { error: failed, reference: caller, caller: who })
    const shown = [
      formatReference(caller),
      JSON.stringify(caller),
      inspect(caller, { depth: 9, showHidden: true }),
      inspect(failed, { depth: 9, showHidden: true }),
      JSON.stringify(structuredClone(caller)),
      ...lines,
    ].join()
    for (const part of [secret, 'someone', header('someone', secret).slice(6)]) assert.ok(!shown.includes(part), shown)
    assert.equal(formatReference(caller), formatReference(reference))
  }
})

/** A source that reads in the name of callers that are held. */
function withCallers(t: TestContext, host: string, options: ClientOptions = {}) {
  const clock = new FakeClock()
  const callers = new HeldCallers({ now: clock.now })
  const { registry, reference } = createClient(t, host, { ...options, clock })
  assert.ok(registry instanceof HttpRegistry)
  const log = createLog('error', () => undefined)
  return { source: new ImageSource({ registry, layout: new OciLayout(), callers, log }), callers, reference, clock }
}

test('what is read after a mount is read with its credentials while it stands, then with those of the daemon', async (t) => {
  for (const kind of ['basic', 'bearer'] as const) {
    const registry = await startRegistry(t, kind)
    const find = async (): Promise<Credentials> => await Promise.resolve(user('daemon'))
    const { source, callers, reference, clock } = withCallers(t, registry.host, { credentials: { find } })
    const read = async (): Promise<void> => {
      const bytes = await source.range(reference, layerDescriptor, { start: 5, end: 15 }, { signal })
      assert.deepEqual(Buffer.from(bytes), Buffer.from(layer.subarray(5, 15)))
      assert.deepEqual(await readAll(source.openLayer(reference, layerDescriptor, { signal })), Buffer.from(layer))
    }
    const isOf = (name: string): boolean =>
      registry.seen.join().includes(kind === 'basic' ? header(name, secret) : `of-${name}`)
    registry.readers.delete('daemon')
    await assert.rejects(read(), { code: 'denied' })
    callers.hold('mount 1', by(reference, user('a')))
    await read()
    // Another tag of the same repository is read with it too; another repository is not.
    await source.range(
      parseReference(`${registry.host}/lab/app:other`),
      layerDescriptor,
      { start: 0, end: 1 },
      { signal },
    )
    const elsewhere = parseReference(`${registry.host}/lab/other`)
    await assert.rejects(source.range(elsewhere, layerDescriptor, { start: 0, end: 1 }, { signal }), { code: 'denied' })
    // His password has changed: a second mount of the repository goes on, and the first is passed over for a while.
    registry.readers.delete('a')
    registry.readers.add('b')
    callers.hold('mount 0', by(reference, user('b')))
    await read()
    callers.release('mount 0')
    registry.readers.add('daemon')
    await read()
    assert.ok(isOf('daemon'))
    registry.readers.add('a')
    clock.nowMs += 30_000
    registry.seen.length = 0
    await read()
    assert.ok(isOf('a') && !isOf('daemon'))
    callers.release('mount 1')
    registry.seen.length = 0
    await read()
    assert.ok(isOf('daemon') && !isOf('a'))
  }
})

test('what a tag stands for, and who may read it, is asked with nobody else’s credentials', async (t) => {
  const { host } = await startRegistry(t, 'basic')
  const { source, callers, reference } = withCallers(t, host)
  callers.hold('mount', by(reference, user('a')))
  for (const asker of [reference, by(reference, user('b')), by(reference, undefined)]) {
    await assert.rejects(source.resolve(asker, 'linux/amd64', { signal }), { code: 'denied' })
    await assert.rejects(source.topDigest(asker, { signal }), { code: 'denied' })
    await assert.rejects(source.checkAccess(asker, { signal }), { code: 'denied' })
  }
  // Nor is content read for somebody who asks for it in his own name.
  await assert.rejects(readAll(source.openLayer(by(reference, user('b')), layerDescriptor, { signal })), {
    code: 'denied',
  })
})

test('callers are held while what they ask for runs, and no longer', async () => {
  const callers = new HeldCallers()
  const reference = parseReference('host.test/app')
  const isHeld = (): boolean => callers.readersOf(reference).length === 2
  await callers.during(by(reference, user('a')), async () => await Promise.resolve(assert.ok(isHeld())))
  assert.ok(!isHeld())
  await assert.rejects(callers.during(by(reference, user('a')), async () => await Promise.reject(new Error('x'))))
  assert.ok(!isHeld())
})
