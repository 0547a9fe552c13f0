import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isIP, type LookupFunction } from 'node:net'
import { test, type TestContext } from 'node:test'
import { classOfAddress, type AddressClass } from '../../../node/registry/address-class.ts'
import type { Credentials } from '../../../node/registry/credentials.ts'
import { OutageWatch } from '../../../node/registry/outage-watch.ts'
import { ReachGuard } from '../../../node/registry/reach.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { eventually } from '../../support/deadline.ts'
import { createClient, signal, type Client, type ClientOptions } from '../../support/registry/fault-client.ts'
import { serve, trap } from '../../support/registry/serve.ts'
import { answer, assertImage, layerDescriptor, manifest } from '../../support/registry/small-image.ts'

/** Addresses of this machine that stand for others; 127.0.0.1 is what it is. */
const stands: Record<string, AddressClass> = {
  '127.0.0.2': 'public',
  '127.0.0.3': 'private',
  '127.0.0.4': 'metadata',
  '127.0.0.5': 'link-local',
}
const open = '127.0.0.2'
const classOf = (address: string): AddressClass => stands[address] ?? classOfAddress(address)

/** The addresses of names, each time that they are looked up; the last answer stays. */
type Names = Record<string, string[][]>

function lookupOf(names: Names): LookupFunction {
  return (hostname, _options, callback) => {
    const answers = names[hostname]
    const addresses = (answers !== undefined && answers.length > 1 ? answers.shift() : answers?.[0]) ?? []
    if (addresses.length === 0) callback(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }), '')
    else
      callback(
        null,
        addresses.map((address) => ({ address, family: isIP(address) })),
      )
  }
}

/** A client that sends its requests for others, of whom the registry is known by name. */
function clientForOthers(
  t: TestContext,
  host: string,
  { names = {}, ...options }: { names?: Names } & ClientOptions = {},
): Client {
  const guard = new ReachGuard({ lookup: lookupOf(names), classOf })
  return createClient(t, host, { guard, forOthers: { named: [host] }, ...options })
}

const isRefused = (error: unknown): boolean => isP2pfsError(error, 'denied')

/** Reads all of the image: what it names is followed as far as it goes. */
async function read({ source, reference }: Client): Promise<void> {
  await source.resolve(reference, 'linux/amd64', { signal })
  for await (const bytes of source.openLayer(reference, layerDescriptor, { signal })) void bytes
}

const challenge = (realm: string): Record<string, string> => ({
  'www-authenticate': `Bearer realm="${realm}",service="s"`,
})

type Answer = (request: IncomingMessage, response: ServerResponse, target: string) => void

const isToken = ({ url }: IncomingMessage): boolean => url?.startsWith('/token') === true

/** Answers with which a registry may have a host connect to `target`, HOST:PORT. */
const lies: Record<string, Answer> = {
  'a token realm': (_request, response, target) =>
    void response.writeHead(401, challenge(`http://${target}/token`)).end(),
  'a redirect of a manifest': ({ url }, response, target) =>
    void response.writeHead(307, { location: `http://${target}${url}` }).end(),
  'a redirect of a blob': (request, response, target) => {
    if (request.url?.includes('/blobs/') === true)
      response.writeHead(307, { location: `http://${target}${request.url}` }).end()
    else answer(request, response)
  },
  'a redirect of the token service': (request, response, target) => {
    if (isToken(request)) response.writeHead(302, { location: `http://${target}/token` }).end()
    else response.writeHead(401, challenge(`http://${request.headers.host}/token`)).end()
  },
  'a chain of redirects': (request, response, target) => {
    const hops = Number(/hop=(\d)/.exec(request.url ?? '')?.[1] ?? 0)
    const location = hops === 4 ? `http://${target}/x` : `http://${request.headers.host}/v2/x?hop=${hops + 1}`
    response.writeHead(307, { location }).end()
  },
}

for (const [what, lie] of Object.entries(lies)) {
  test(`a request for others is not led into a network of this host by ${what}`, async (t) => {
    for (const address of ['127.0.0.1', '127.0.0.3', '127.0.0.4', '127.0.0.5']) {
      const inner = await trap(t, address)
      const host = await serve(t, (request, response) => lie(request, response, inner.authority), open)
      await assert.rejects(read(clientForOthers(t, host)), isRefused)
      assert.equal(inner.connections(), 0, address)
      // The same is followed for this host itself.
      await read(createClient(t, host)).catch(() => undefined)
      assert.ok(inner.connections() > 0, address)
    }
  })

  test(`a request for others is not led there by a name in ${what}`, async (t) => {
    const inner = await trap(t, '127.0.0.1')
    const target = `inner.test:${inner.port}`
    const host = await serve(t, (request, response) => lie(request, response, target), open)
    await assert.rejects(read(clientForOthers(t, host, { names: { 'inner.test': [['127.0.0.1']] } })), isRefused)
    assert.equal(inner.connections(), 0)
  })
}

test('addresses of services that tell secrets are out of reach in every form', async (t) => {
  for (const target of [
    '169.254.169.254',
    '[fd00:ec2::254]',
    '[::ffff:169.254.169.254]',
    '[::ffff:127.0.0.1]',
    '0.0.0.0',
    '2130706433',
    '0x7f.1',
    '[::]',
    '[fe80::1]',
    '100.64.0.1',
    '255.255.255.255',
    '[64:ff9b::7f00:1]',
  ]) {
    const host = await serve(t, (request, response) => lies['a redirect of a blob']!(request, response, target), open)
    await assert.rejects(read(clientForOthers(t, host)), isRefused, target)
  }
})

test('of a name with several addresses only those within reach are connected to', async (t) => {
  const inner = await trap(t, '127.0.0.1')
  const storage = await serve(t, answer, open)
  const target = `storage.test:${storage.split(':')[1]}`
  const host = await serve(t, (request, response) => lies['a redirect of a blob']!(request, response, target), open)
  const client = clientForOthers(t, host, { names: { 'storage.test': [['127.0.0.1', open, '127.0.0.3']] } })
  await assertImage(client.source, client.reference)
  assert.equal(inner.connections(), 0)
})

test('a name that stands for something else later leads nowhere else', async (t) => {
  const inner = await trap(t)
  const names: Names = { 'registry.test': [[open], ['127.0.0.1']] }
  const guard = new ReachGuard({ lookup: lookupOf(names), classOf })
  assert.deepEqual([...(await guard.reachOf('registry.test'))], ['public'])
  const client = createClient(t, `registry.test:${inner.port}`, {
    guard,
    forOthers: { named: [`registry.test:${inner.port}`] },
  })
  await assert.rejects(read(client), isRefused)
  assert.equal(inner.connections(), 0)
})

test('the probe of a silent server goes nowhere that its requests do not', async (t) => {
  const host = await serve(t, () => undefined, open)
  const port = Number(host.split(':')[1])
  const inner = await trap(t, '127.0.0.1', port)
  // For the reach, for the request, and for the probe, a second after it.
  const names = { localhost: [[open], [open], ['127.0.0.1']] }
  const client = clientForOthers(t, `localhost:${port}`, { names, timeouts: { headersMs: 1_500 } })
  await assert.rejects(read(client), isRefused)
  assert.deepEqual([names.localhost.length, inner.connections()], [1, 0])
})

test('the probe of a silent server is a connection to an address that its lookup finds', async (t) => {
  const inner = await trap(t)
  const guard = new ReachGuard({ lookup: lookupOf({ 'registry.test': [['127.0.0.1']] }), classOf })
  const answers = [new Set<AddressClass>(['public']), new Set<AddressClass>(['loopback'])].map((reach) => {
    const { promise, resolve } = Promise.withResolvers<string>()
    const watch = new OutageWatch(
      { onIdle: () => undefined },
      {
        host: 'registry.test',
        port: inner.port,
        unreachableMs: 100,
        lookup: guard.lookupWithin(reach),
        pace: { silenceMs: 5, probeMs: 50 },
      },
    )
    const listening = watch.listen(({ code }) => resolve(code))
    t.after(() => listening.close())
    listening.wait()
    return promise
  })
  assert.equal(await answers[0], 'timeout', 'out of reach: nothing is there')
  await eventually('the other is probed', async () => await Promise.resolve(inner.connections() > 0 || undefined), {
    timeoutMs: 10_000,
  })
})

test('a registry that is named may lead to the network that it is in itself, and to no other', async (t) => {
  const storage = await serve(t, answer, '127.0.0.3')
  const host = await serve(
    t,
    (request, response) => lies['a redirect of a blob']!(request, response, storage),
    '127.0.0.3',
  )
  const client = clientForOthers(t, host)
  await assertImage(client.source, client.reference)
  const inner = await trap(t)
  const other = await serve(
    t,
    (request, response) => lies['a redirect of a blob']!(request, response, inner.authority),
    '127.0.0.3',
  )
  await assert.rejects(read(clientForOthers(t, other)), isRefused)
  assert.equal(inner.connections(), 0)
})

test('a registry that is not named is reached at a public address only', async (t) => {
  const client = clientForOthers(t, await serve(t, answer, open), { forOthers: { named: [] } })
  await assertImage(client.source, client.reference)
  for (const address of ['127.0.0.1', '127.0.0.3']) {
    const inner = await trap(t, address)
    await assert.rejects(read(clientForOthers(t, inner.authority, { forOthers: { named: [] } })), isRefused)
    const named = `inner.test:${inner.port}`
    const names = { 'inner.test': [[address]] }
    await assert.rejects(read(clientForOthers(t, named, { names, forOthers: { named: [] } })), isRefused)
    assert.equal(inner.connections(), 0)
  }
})

test('a service that tells secrets is out of reach also for a registry that is named there', async (t) => {
  const inner = await trap(t, '127.0.0.4')
  await assert.rejects(read(clientForOthers(t, inner.authority)), isRefused)
  assert.equal(inner.connections(), 0)
})

test('a connection that one registry may have is not given to another one that may not', async (t) => {
  const storage = await serve(t, answer, '127.0.0.3')
  const redirect = (request: IncomingMessage, response: ServerResponse): void =>
    lies['a redirect of a blob']!(request, response, storage)
  const [inside, outside] = [await serve(t, redirect, '127.0.0.3'), await serve(t, redirect, open)]
  const client = clientForOthers(t, inside, {
    insecureRegistries: [inside, outside],
    forOthers: { named: [inside, outside] },
  })
  await assertImage(client.source, client.reference)
  await assert.rejects(read({ ...client, reference: { ...client.reference, registry: outside } as never }), isRefused)
})

test('a mirror leads to its own network, and the registry behind it does not', async (t) => {
  const inner = await trap(t)
  const mirror = await serve(t, (_request, response) => void response.writeHead(404).end(), '127.0.0.3')
  const host = await serve(t, (request, response) => lies['a redirect of a blob']!(request, response, mirror), open)
  const client = clientForOthers(t, host, { mirrors: [`${host}=http://${mirror}`] })
  await assert.rejects(read(client), isRefused)
  const lying = await serve(
    t,
    (request, response) => lies['a redirect of a blob']!(request, response, inner.authority),
    '127.0.0.3',
  )
  const other = await serve(t, answer, open)
  const viaMirror = clientForOthers(t, other, { mirrors: [`${other}=http://${lying}`] })
  await assertImage(viaMirror.source, viaMirror.reference)
  assert.equal(inner.connections(), 0)
})

test('URLs of a layer in a manifest are not asked', async (t) => {
  const inner = await trap(t)
  const raw = JSON.parse(manifest) as { layers: { mediaType: string; urls?: string[] }[] }
  raw.layers[0]!.urls = [`http://${inner.authority}/layer`]
  const [withUrls, foreign] = [
    'application/vnd.oci.image.layer.v1.tar+gzip',
    'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  ].map((mediaType) => {
    raw.layers[0]!.mediaType = mediaType
    return JSON.stringify(raw)
  }) as [string, string]
  for (const json of [withUrls, foreign]) {
    const host = await serve(
      t,
      (request, response) => {
        if (request.url?.includes('/manifests/') === true) response.end(json)
        else answer(request, response)
      },
      open,
    )
    await read(clientForOthers(t, host)).catch((error: unknown) => assert.ok(isP2pfsError(error, 'unsupported')))
    await read(createClient(t, host)).catch((error: unknown) => assert.ok(isP2pfsError(error, 'unsupported')))
  }
  assert.equal(inner.connections(), 0)
})

test('what goes through a proxy is checked as far as this host knows the name', async (t) => {
  const asked: string[] = []
  const proxy = await serve(t, (request, response) => {
    asked.push(new URL(request.url ?? '').host)
    if (request.url?.includes('/blobs/') === true) response.writeHead(307, { location: 'http://inner.test/blob' }).end()
    else answer(request, response)
  })
  const names = { 'inner.test': [['10.0.0.1']] }
  const options = { names, environment: { http_proxy: `http://${proxy}` } }
  // Only the proxy knows the registry's own name.
  await assert.rejects(read(clientForOthers(t, 'registry.test', options)), isRefused)
  assert.deepEqual([...new Set(asked)], ['registry.test'])
})

test('a server that a registry redirects to gets no credentials of this host for the requests of others', async (t) => {
  const seen = new Set<string | undefined>()
  const user = (name: string): Credentials => ({ username: name, password: 'secret', identityToken: undefined })
  const second = await serve(
    t,
    (request, response) => {
      seen.add(request.headers.authorization)
      if (isToken(request)) return void response.end('{"token":"for-anybody"}')
      if (request.headers.authorization === 'Bearer for-anybody') return answer(request, response)
      response.writeHead(401, challenge(`http://${request.headers.host}/token`)).end()
    },
    open,
  )
  const first = await serve(
    t,
    (request, response) => {
      if (request.headers.authorization === undefined)
        response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
      else response.writeHead(307, { location: `http://${second}${request.url}` }).end()
    },
    open,
  )
  const credentials = { find: async (registry: string) => user(registry) }
  const client = clientForOthers(t, first, { credentials, insecureRegistries: [first, second] })
  await assertImage(client.source, client.reference)
  assert.deepEqual([...seen], [undefined, 'Bearer for-anybody'])
})
