import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer, request as forward } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { LabAuthority } from '../../../netlab/registry/lab-certificates.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { HttpRegistryOptions } from '../../../node/registry/http-registry.ts'
import { createImageSource } from '../../../node/registry/image-source.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import {
  createClient,
  descriptor,
  fails,
  layer,
  startRegistry,
  type Client,
} from '../../support/registry/fault-client.ts'

/** A registry with TLS of an authority that nobody knows. */
async function startSecure(
  t: TestContext,
): Promise<{ server: FaultRegistry; authority: LabAuthority; directory: string }> {
  const directory = temporaryDirectory(t)
  const authority = await LabAuthority.create(join(directory, 'authority'))
  const server = await startRegistry(t, {
    tls: await authority.issue(['127.0.0.1', 'registry.test']),
    redirectBlobs: { lifeMs: 60_000 },
  })
  return { server, authority, directory }
}

function secureClient(t: TestContext, host: string, options: Partial<HttpRegistryOptions>): Client {
  return createClient(t, host, { insecureRegistries: [], ...options })
}

test('a private authority is trusted by option, by its file where Docker has it, and by NODE_EXTRA_CA_CERTS', async (t) => {
  const { server, authority, directory } = await startSecure(t)
  const byOption = secureClient(t, server.authority, {
    certificates: { authorityFiles: [authority.certificateFile], hostsDirectory: '/nonexistent' },
  })
  assert.deepEqual(await byOption.range(0, 10), layer.subarray(0, 10))

  const hosts = join(directory, 'certs.d')
  const unknown = secureClient(t, server.authority, { certificates: { authorityFiles: [], hostsDirectory: hosts } })
  const denied = fails(
    'denied',
    /authority that is not known here: name its file to the daemon with --registry-ca, or put it into \/etc\/docker\/certs\.d\/127\.0\.0\.1:\d+\/ca\.crt/,
  )
  await assert.rejects(unknown.range(0, 10), denied)
  for (const host of [server.authority, server.front.storageAuthority]) {
    mkdirSync(join(hosts, host), { recursive: true })
    copyFileSync(authority.certificateFile, join(hosts, host, 'ca.crt'))
  }
  await assert.rejects(unknown.range(0, 10), denied)
  unknown.clock.nowMs += 61_000
  assert.deepEqual(await unknown.range(0, 10), layer.subarray(0, 10), 'without a restart')

  const script = `
    import { HttpRegistry } from ${JSON.stringify(fileURLToPath(new URL('../../../node/registry/http-registry.ts', import.meta.url)))}
    import { parseReference } from ${JSON.stringify(fileURLToPath(new URL('../../../node/registry/reference.ts', import.meta.url)))}
    const log = { error() {}, warn() {}, info() {}, debug() {} }
    const registry = new HttpRegistry({ log, credentials: { find: async () => undefined } }, { insecureRegistries: [], userAgent: 'test', environment: {} })
    const descriptor = { digest: process.argv[1], mediaType: '', sizeBytes: ${layer.length} }
    const bytes = await registry.range(parseReference('${server.authority}/lab/app'), descriptor, { start: 0, end: 10 }, { signal: AbortSignal.timeout(30_000) })
    console.log(Buffer.from(bytes).toString('hex'))
    await registry.close()`
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '-e', script, descriptor.digest],
    { env: { ...process.env, NODE_EXTRA_CA_CERTS: authority.certificateFile } },
  )
  assert.equal(stdout.trim(), layer.subarray(0, 10).toString('hex'))
})

test('a certificate for another host is denied; certificates that are none are said at the start', async (t) => {
  const { server, authority, directory } = await startSecure(t)
  const other = await startRegistry(t, { tls: await authority.issue(['other.test']) })
  const certificates = { authorityFiles: [authority.certificateFile], hostsDirectory: '/nonexistent' }
  await assert.rejects(
    secureClient(t, other.authority, { certificates }).range(0, 10),
    fails('denied', /certificate of .* is not good/),
  )
  const none = join(directory, 'none.pem')
  writeFileSync(none, 'none')
  for (const [file, pattern] of [
    [none, /no certificate in PEM/],
    ['/nowhere.pem', /cannot read \/nowhere\.pem, which --registry-ca names/],
  ] as const) {
    const source = createImageSource({
      log: silentLog,
      insecureRegistries: [],
      userAgent: 'test',
      certificates: { authorityFiles: [file] },
    })
    await assert.rejects(source.start(), fails('invalid', pattern))
    await source.close()
  }
  await assert.rejects(createClient(t, server.authority).range(0, 10), fails('unavailable', /./))
  const plain = await startRegistry(t)
  await assert.rejects(
    secureClient(t, plain.authority, {}).range(0, 10),
    fails('unavailable', /name it to the daemon with --insecure-registry/),
  )
})

test('hosts.toml names authorities and client certificates, or that any certificate will do', async (t) => {
  const { server, authority, directory } = await startSecure(t)
  const client = await authority.issue(['client.test'])
  const hosts = join(directory, 'hosts')
  const write = (text: string): void => {
    mkdirSync(join(hosts, '_default'), { recursive: true })
    writeFileSync(join(hosts, '_default/hosts.toml'), text)
    writeFileSync(join(hosts, '_default/client.cert'), client.cert)
    writeFileSync(join(hosts, '_default/client.key'), client.key)
    writeFileSync(join(hosts, '_default/client.pem'), `${client.cert}\n${client.key}`)
    copyFileSync(authority.certificateFile, join(hosts, '_default/own.crt'))
  }
  const read = async (text: string): Promise<Buffer> => {
    write(text)
    const certificates = { authorityFiles: [], hostsDirectory: '/nonexistent' }
    return await secureClient(t, server.authority, { certificates, hostsDirectories: [hosts] }).range(0, 10)
  }
  await assert.rejects(read('skip_verify = false'), fails('denied', /authority that is not known here/))
  for (const text of [
    'ca = "own.crt"',
    `ca = ["${authority.certificateFile}"]\nclient = [["client.cert", "client.key"]]`,
    'ca = "own.crt"\nclient = "client.pem"',
    'skip_verify = true',
    // Without hosts.toml, the certificates beside it are those of the registry.
    '',
  ])
    assert.deepEqual(await read(text), layer.subarray(0, 10), text)
})

test('the leave not to verify a server is not for those that it redirects to; its authorities are', async (t) => {
  const { server, authority, directory } = await startSecure(t)
  const hosts = join(directory, 'hosts')
  mkdirSync(join(hosts, '_default'), { recursive: true })
  // The storage is at 127.0.0.1.
  const host = `registry.test:${portOf(server.authority)}`
  const environment = { HTTPS_PROXY: `http://${(await startProxy(t)).authority}` }
  const read = async (text: string): Promise<Buffer> => {
    writeFileSync(join(hosts, '_default/hosts.toml'), text)
    const certificates = { authorityFiles: [], hostsDirectory: '/nonexistent' }
    return await secureClient(t, host, { certificates, hostsDirectories: [hosts], environment }).range(0, 10)
  }
  await assert.rejects(read('skip_verify = true'), fails('denied', /certificate of 127\.0\.0\.1:\d+ is from/))
  assert.deepEqual(await read(`ca = "${authority.certificateFile}"`), layer.subarray(0, 10))
})

test('a redirect from TLS to plain HTTP is refused', async (t) => {
  const { server, authority } = await startSecure(t)
  const { range } = secureClient(t, server.authority, {
    certificates: { authorityFiles: [authority.certificateFile], hostsDirectory: '/nonexistent' },
  })
  server.front.redirectBlobs = { lifeMs: 60_000, scheme: 'http' }
  await assert.rejects(range(0, 10), fails('unavailable', /in clear/))
})

interface Proxy {
  authority: string
  /** The requests to it: `CONNECT HOST:PORT`, `GET URL`. */
  asked: string[]
}

/** A forward proxy that takes every `*.test` for 127.0.0.1. */
async function startProxy(t: TestContext, credentials?: string): Promise<Proxy> {
  const asked: string[] = []
  const authorized = (header: string | undefined): boolean =>
    credentials === undefined || header === `Basic ${Buffer.from(credentials).toString('base64')}`
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '')
    asked.push(`${request.method} ${url.origin}`)
    if (!authorized(request.headers['proxy-authorization'])) return void response.writeHead(407).end()
    const { 'proxy-authorization': _own, 'proxy-connection': _old, ...headers } = request.headers
    const onward = forward(
      {
        host: '127.0.0.1',
        port: url.port,
        path: `${url.pathname}${url.search}`,
        method: request.method,
        headers,
        agent: false,
      },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(response)
      },
    )
    onward.on('error', () => void response.destroy())
    request.pipe(onward)
  })
  server.on('connect', (request, socket) => {
    asked.push(`CONNECT ${request.url}`)
    if (!authorized(request.headers['proxy-authorization']))
      return void socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
    const onward = connect(Number(request.url?.split(':').at(-1)), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      onward.pipe(socket).pipe(onward)
    })
    onward.on('error', () => void socket.destroy())
    socket.on('error', () => void onward.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { authority: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

const portOf = (authority: string): string => authority.split(':').at(-1)!

test('goes through the proxies of the environment: plain HTTP by URL, TLS by tunnel', async (t) => {
  const { server, authority } = await startSecure(t)
  server.front.redirectBlobs = undefined
  const plain = await startRegistry(t)
  const proxy = await startProxy(t, 'user:pass word')
  const environment = {
    HTTP_PROXY: `http://user:pass%20word@${proxy.authority}`,
    https_proxy: `user:pass%20word@${proxy.authority}`,
  }
  const certificates = { authorityFiles: [authority.certificateFile], hostsDirectory: '/nonexistent' }
  const secureHost = `registry.test:${portOf(server.authority)}`
  const secure = secureClient(t, secureHost, { environment, certificates })
  assert.deepEqual(await secure.blob(), layer)
  assert.deepEqual(proxy.asked, [`CONNECT ${secureHost}`])
  proxy.asked.length = 0
  const plainHost = `registry.test:${portOf(plain.authority)}`
  assert.deepEqual(await createClient(t, plainHost, { environment }).blob(), layer)
  assert.deepEqual(proxy.asked, [`GET http://${plainHost}`])
  proxy.asked.length = 0
  const bypassing = createClient(t, plain.authority, { environment })
  assert.deepEqual(await bypassing.range(0, 10), layer.subarray(0, 10), 'loopback needs none')
  assert.deepEqual(proxy.asked, [])
})

test('a proxy that refuses or is down is said, without its password', async (t) => {
  const { server } = await startSecure(t)
  const proxy = await startProxy(t, 'user:right')
  const host = `registry.test:${portOf(server.authority)}`
  const check = (code: 'denied' | 'unavailable', pattern: RegExp) => (error: unknown) =>
    fails(code, pattern)(error) && !String((error as Error).stack).includes('wrong')
  await assert.rejects(
    secureClient(t, host, { environment: { HTTPS_PROXY: `http://user:wrong@${proxy.authority}` } }).range(0, 10),
    check('denied', /the proxy refuses to reach registry\.test/),
  )
  await assert.rejects(
    createClient(t, host, { environment: { HTTP_PROXY: `http://user:wrong@${proxy.authority}` } }).range(0, 10),
    check('denied', /the proxy refuses to reach registry\.test/),
  )
  await assert.rejects(
    secureClient(t, host, { environment: { HTTPS_PROXY: 'http://user:wrong@127.0.0.1:1' } }).range(0, 10),
    check('unavailable', /cannot reach registry\.test/),
  )
  await assert.rejects(
    secureClient(t, host, { environment: { HTTPS_PROXY: 'ftp://wrong' } }).range(0, 10),
    fails('invalid', /HTTPS_PROXY in the environment is not the URL of an HTTP proxy/),
  )
})
