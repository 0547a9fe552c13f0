import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { createLog, silentLog } from '../../../node/base/log.ts'
import { createImageSource } from '../../../node/registry/image-source.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { createClient, fails, signal } from '../../support/registry/fault-client.ts'
import { serve } from '../../support/registry/serve.ts'
import { answer, assertImage, manifest } from '../../support/registry/small-image.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

type Handle = (request: IncomingMessage, response: ServerResponse) => void

/** A server of images, and the requests that it has got. */
async function start(t: TestContext, handle: Handle = answer): Promise<{ host: string; asked: string[] }> {
  const asked: string[] = []
  const host = await serve(t, (request, response) => {
    asked.push(`${request.method} ${request.url}`)
    handle(request, response)
  })
  return { host, asked }
}

/** A directory of hosts with a file for each name. */
function configure(t: TestContext, files: Readonly<Record<string, string>>): string {
  const directory = temporaryDirectory(t)
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(directory, name), { recursive: true })
    writeFileSync(join(directory, name, 'hosts.toml'), text)
  }
  return directory
}

const gone: Handle = (_request, response) => void response.writeHead(404).end()
const paths = (asked: readonly string[]): Set<string> =>
  new Set(asked.map((line) => line.replace(/sha256:[0-9a-f]+/, 'DIGEST')))

for (const [path, prefix] of [
  ['', '/v2'],
  ['/', '/v2'],
  ['/hub', '/hub/v2'],
  ['/v2', '/v2'],
  ['/v2/proxy', '/v2/proxy'],
  ['/v2/proxy/', '/v2/proxy'],
  ['/artifactory/v2/proxy', '/artifactory/v2/proxy'],
] as const) {
  test(`a mirror at ${path || 'its root'} is asked below ${prefix}, for the images of the registry`, async (t) => {
    const { host, asked } = await start(t)
    const { source } = createClient(t, 'unused.test', { mirrors: [`reg.test:5000=http://${host}${path}`] })
    await assertImage(source, parseReference('reg.test:5000/team/app'))
    assert.deepEqual(
      paths(asked),
      new Set([
        `GET ${prefix}/team/app/manifests/latest?ns=reg.test%3A5000`,
        `GET ${prefix}/team/app/blobs/DIGEST?ns=reg.test%3A5000`,
      ]),
    )
  })
}

test('a project that is a mirror gives tokens for the repository as it calls it', async (t) => {
  const scopes: (string | null)[] = []
  const { host } = await start(t, (request, response) => {
    const url = new URL(request.url ?? '', 'http://x')
    if (url.pathname === '/token') {
      scopes.push(url.searchParams.get('scope'))
      return void response.end('{"token":"t"}')
    }
    if (request.headers.authorization === 'Bearer t') return answer(request, response)
    response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token"` }).end()
  })
  const { source } = createClient(t, 'unused.test', { mirrors: [`reg.test=http://${host}/v2/proxy`] })
  await assertImage(source, parseReference('reg.test/team/app'))
  assert.deepEqual(scopes, ['repository:proxy/team/app:pull'])
})

test('hosts.toml names mirrors and the server, which are asked in this order', async (t) => {
  const first = await start(t, gone)
  const second = await start(t, gone)
  const server = await start(t)
  const directory = configure(t, {
    'reg.test': `
      server = "http://${server.host}"
      [host."http://${first.host}/v2/proxy"]
        capabilities = ["pull", "resolve"]
        override_path = true
      [host."http://${second.host}/cache"]`,
  })
  const { source } = createClient(t, 'unused.test', { hostsDirectories: [directory] })
  await assertImage(source, parseReference('reg.test/team/app'))
  const query = '?ns=reg.test'
  for (const [{ asked }, prefix] of [
    [first, '/v2/proxy'],
    [second, '/cache/v2'],
    [server, '/v2'],
  ] as const)
    assert.equal(asked[0], `GET ${prefix}/team/app/manifests/latest${query}`)
})

test('the registry itself is not told its own name', async (t) => {
  const registry = await start(t)
  const directory = configure(t, { [registry.host]: `server = "http://${registry.host}"` })
  const { source } = createClient(t, 'unused.test', { hostsDirectories: [directory] })
  await assertImage(source, parseReference(`${registry.host}/team/app`))
  assert.equal(registry.asked[0], 'GET /v2/team/app/manifests/latest')
})

test('a mirror that cannot resolve tags is asked for what has a digest only', async (t) => {
  const mirror = await start(t)
  const server = await start(t)
  const directory = configure(t, {
    'reg.test': `
      server = "http://${server.host}"
      [host."http://${mirror.host}"]
        capabilities = ["pull"]`,
  })
  const { source } = createClient(t, 'unused.test', { hostsDirectories: [directory] })
  await assertImage(source, parseReference('reg.test/team/app'))
  assert.deepEqual(paths(server.asked), new Set(['GET /v2/team/app/manifests/latest?ns=reg.test']))
  assert.deepEqual(paths(mirror.asked), new Set(['GET /v2/team/app/blobs/DIGEST?ns=reg.test']))
})

for (const name of ['reg.test_5000_', 'reg.test:5000', '_default']) {
  test(`the hosts of reg.test:5000 may be in ${name}`, async (t) => {
    const mirror = await start(t)
    const directory = configure(t, { [name]: `[host."http://${mirror.host}"]` })
    const { source } = createClient(t, 'unused.test', { hostsDirectories: [temporaryDirectory(t), directory] })
    await assertImage(source, parseReference('reg.test:5000/team/app'))
    assert.ok(mirror.asked.length > 0)
  })
}

test('mirrors of options come before those of files', async (t) => {
  const option = await start(t)
  const file = await start(t)
  const directory = configure(t, { _default: `[host."http://${file.host}"]` })
  const { source } = createClient(t, 'unused.test', {
    hostsDirectories: [directory],
    mirrors: [`reg.test=http://${option.host}`],
  })
  await assertImage(source, parseReference('reg.test/team/app'))
  assert.deepEqual(file.asked, [])
})

test('a change takes effect within a minute; a mistake in it is warned of, and changes nothing', async (t) => {
  const [before, after] = [await start(t), await start(t)]
  const directory = configure(t, { _default: `[host."http://${before.host}"]` })
  const lines: string[] = []
  const log = createLog('warn', (line) => void lines.push(line))
  const { source, clock } = createClient(t, 'unused.test', { hostsDirectories: [directory], log })
  const reference = parseReference('reg.test/team/app')
  await assertImage(source, reference)
  const write = (text: string): void => {
    writeFileSync(join(directory, '_default/hosts.toml'), text)
    clock.nowMs += 61_000
    before.asked.length = 0
  }
  write('[host."')
  await assertImage(source, reference)
  assert.ok(before.asked.length > 0)
  assert.match(lines[0]!, /the hosts of a registry cannot be read.*hosts\.toml/)
  write(`[host."http://${after.host}"]`)
  await assertImage(source, reference)
  assert.deepEqual(before.asked, [])
  assert.ok(after.asked.length > 0)
})

test('a mistake in a file is said at the start', async (t) => {
  for (const [text, pattern] of [
    ['server = ', /hosts\.toml: Invalid TOML/],
    ['[host."http://a b"]', /"http:\/\/a b" is not a host or its URL/],
    ['host = 1', /host is not an object/],
    ['server = "a"\ncapabilities = "pull"', /capabilities is not a list/],
    ['ca = "absent.crt"', /absent\.crt/],
    ['client = [[1, 2]]', /ca and client are files/],
  ] as const) {
    const hostsDirectories = [configure(t, { 'reg.test': text })]
    const source = createImageSource({ log: silentLog, insecureRegistries: [], userAgent: 'test', hostsDirectories })
    await assert.rejects(source.start(), fails('invalid', pattern), text)
    await source.close()
  }
  const source = createImageSource({
    log: silentLog,
    insecureRegistries: [],
    userAgent: 'test',
    hostsDirectories: ['/nowhere'],
  })
  await assert.rejects(source.start(), fails('invalid', /cannot read \/nowhere, which --registry-hosts-dir names/))
  await source.close()
})

test('headers of hosts.toml go to its host only, and not on with a redirect', async (t) => {
  const seen: (string | string[] | undefined)[] = []
  const storage = await start(t, (request, response) => {
    seen.push(request.headers['x-key'])
    answer(request, response)
  })
  const mirror = await start(t, (request, response) => {
    assert.equal(request.headers['x-key'], 'secret, other')
    response.writeHead(307, { location: `http://${storage.host}${request.url}` }).end()
  })
  const directory = configure(t, {
    _default: `
      [host."http://${mirror.host}"]
      [host."http://${mirror.host}".header]
        X-Key = ["secret", "other"]`,
  })
  const { source } = createClient(t, 'unused.test', { hostsDirectories: [directory] })
  await assertImage(source, parseReference('reg.test/team/app'))
  assert.deepEqual(new Set(seen), new Set([undefined]))
})

test('a push goes to the server that hosts.toml names, and to no mirror', async (t) => {
  const mirror = await start(t)
  const server = await start(t, (_request, response) => void response.writeHead(201).end())
  const directory = configure(t, { 'reg.test': `server = "http://${server.host}"\n[host."http://${mirror.host}"]` })
  const { source } = createClient(t, 'unused.test', { hostsDirectories: [directory] })
  const reference = parseReference('reg.test/team/app')
  await source.pushManifest(reference, 'latest', manifest, 'application/vnd.oci.image.manifest.v1+json', { signal })
  assert.deepEqual(server.asked, ['PUT /v2/team/app/manifests/latest?ns=reg.test'])
  assert.deepEqual(mirror.asked, [])
})
