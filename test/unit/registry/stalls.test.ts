import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { test, type TestContext } from 'node:test'
import type { Credentials } from '../../../node/registry/credentials.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { createClient, fails, FakeClock, readAll, type Client } from '../../support/registry/fault-client.ts'
import { serve } from '../../support/registry/serve.ts'
import {
  answer,
  config,
  describe,
  indexOf,
  layer,
  layerDescriptor,
  manifest,
  types,
} from '../../support/registry/small-image.ts'

/** Longer than a busy machine takes for an answer. */
const timeouts = { headersMs: 1000, idleMs: 1000 }

/** After a pause the time for further tries is over: one more is made, not four. */
class HastyClock extends FakeClock {
  override sleep = async (ms: number, aborted: AbortSignal): Promise<void> => {
    aborted.throwIfAborted()
    this.slept.push(ms)
    this.nowMs += 100_000
  }
}

const digestOfText = (text: string): string => describe(text, '').digest
const index = indexOf([{ ...describe(manifest, types.manifest), platform: { os: 'linux', architecture: 'amd64' } }])
const user: Credentials = { username: 'u', password: 'p', identityToken: undefined }

/** A request of a client, and the place at which the registry falls silent. */
interface Stall {
  what: string
  /** Whether the registry says nothing to this request. */
  isSilent: (request: IncomingMessage) => boolean
  /** The bytes of a body that come before the silence; it begins before the answer where not given. */
  after?: number
  ask: (client: Client, options: { signal: AbortSignal }) => Promise<unknown>
  /** The message says what was waited for. */
  says: RegExp
  /** The registry answers 404 to requests without a password, and names its challenge at its root only. */
  isHidden?: boolean
}

const pathEnds =
  (end: string) =>
  ({ url = '' }: IncomingMessage): boolean =>
    url.split('?')[0]!.endsWith(end)
const resolve: Stall['ask'] = async ({ source, reference }, options) =>
  await source.resolve(reference, 'linux/amd64', options)

const stalls: Stall[] = [
  {
    what: 'the root of its API',
    isSilent: pathEnds('/v2/'),
    ask: resolve,
    // It falls back to the refusal that made it ask.
    says: /has no tag latest/,
    isHidden: true,
  },
  { what: 'the token service', isSilent: pathEnds('/token'), ask: resolve, says: /it was asked for a token for/ },
  { what: 'a tag', isSilent: pathEnds('/latest'), ask: resolve, says: /asked for manifests\/latest of lab\/app/ },
  {
    what: 'the digest of a tag',
    isSilent: ({ method }) => method === 'HEAD',
    ask: async ({ source, reference }, options) => await source.topDigest(reference, options),
    says: /asked for manifests\/latest of lab\/app/,
  },
  {
    what: 'a manifest',
    isSilent: pathEnds(digestOfText(manifest)),
    ask: resolve,
    says: new RegExp(`asked for manifests/${digestOfText(manifest)} of lab/app`),
  },
  {
    what: 'the middle of a manifest',
    isSilent: pathEnds(digestOfText(manifest)),
    after: 10,
    ask: resolve,
    says: new RegExp(`has stopped sending manifests/${digestOfText(manifest)} of lab/app`),
  },
  {
    what: 'a config',
    isSilent: pathEnds(digestOfText(config)),
    ask: resolve,
    says: new RegExp(`asked for blobs/${digestOfText(config)} of lab/app`),
  },
  {
    what: 'a layer',
    isSilent: pathEnds(layerDescriptor.digest),
    ask: async ({ source, reference }, options) => await readAll(source.openLayer(reference, layerDescriptor, options)),
    says: new RegExp(`asked for blobs/${layerDescriptor.digest} of lab/app`),
  },
  {
    what: 'the middle of a layer',
    isSilent: pathEnds(layerDescriptor.digest),
    after: 100_000,
    ask: async ({ source, reference }, options) => await readAll(source.openLayer(reference, layerDescriptor, options)),
    says: new RegExp(`has stopped sending blobs/${layerDescriptor.digest} of lab/app`),
  },
  {
    what: 'a range of a layer',
    isSilent: pathEnds(layerDescriptor.digest),
    ask: async ({ source, reference }, options) =>
      await source.range(reference, layerDescriptor, { start: 5, end: 10 }, options),
    says: new RegExp(`asked for blobs/${layerDescriptor.digest} of lab/app`),
  },
  {
    what: 'the referrers',
    isSilent: ({ url }) => url?.includes('/referrers/') === true,
    ask: async ({ source, reference }, options) =>
      await source.referrers(reference, layerDescriptor.digest, undefined, options),
    says: /asked for referrers of lab\/app/,
  },
  {
    what: 'an upload',
    isSilent: ({ method }) => method === 'POST',
    ask: async ({ source, reference }, options) => await source.pushBlob(reference, Buffer.from('x'), options),
    says: /asked for blobs\/uploads\/ of lab\/app/,
  },
]

/** A registry that wants tokens, and falls silent where it is told to. */
async function start(t: TestContext, stall: Stall, onSilence: () => void = () => undefined): Promise<Client> {
  const reply = (request: IncomingMessage, response: ServerResponse): void => {
    const { url = '', headers } = request
    if (url.startsWith('/token')) return void response.end('{"token":"t"}')
    const isAllowed = headers.authorization === 'Bearer t'
    const challenge = { 'www-authenticate': `Bearer realm="http://${headers.host}/token",service="s"` }
    if (!isAllowed && stall.isHidden === true && url !== '/v2/') response.writeHead(404).end()
    else if (!isAllowed) response.writeHead(401, challenge).end()
    else if (url.split('?')[0]!.endsWith('/latest')) response.end(index)
    else answer(request, response)
  }
  const host = await serve(t, (request, response) => {
    const isAsked = request.headers.authorization === 'Bearer t' || /\/token|\/v2\/$/.test(request.url!.split('?')[0]!)
    if (!isAsked || !stall.isSilent(request)) return reply(request, response)
    onSilence()
    if (stall.after === undefined) return
    const body = request.url!.endsWith(layerDescriptor.digest) ? layer : Buffer.from(manifest)
    response.writeHead(200, { 'content-length': body.length })
    response.write(body.subarray(0, stall.after))
  })
  return createClient(t, host, { timeouts, clock: new HastyClock(), credentials: { find: async () => user } })
}

test('a registry that falls silent, wherever that is, is given up with what it was asked for', async (t) => {
  await Promise.all(
    stalls.map(async (stall) => {
      const client = await start(t, stall)
      const { signal } = new AbortController()
      const code = stall.isHidden === true ? 'missing' : 'timeout'
      await assert.rejects(stall.ask(client, { signal }), (error: unknown) => {
        assert.ok(fails(code, stall.says)(error), `${stall.what}: ${(error as Error).message}`)
        assert.match((error as Error).message, /127\.0\.0\.1:\d+/)
        return true
      })
    }),
  )
})

test('a caller that gives up is not held by a silent registry, wherever it is silent', async (t) => {
  await Promise.all(
    stalls.map(async (stall) => {
      const abort = new AbortController()
      const client = await start(t, stall, () => abort.abort(new Error(`given up: ${stall.what}`)))
      await assert.rejects(stall.ask(client, { signal: abort.signal }), { message: `given up: ${stall.what}` })
    }),
  )
})

test('a client that is closed ends requests to a silent registry', async (t) => {
  await Promise.all(
    stalls.map(async (stall) => {
      const silent = Promise.withResolvers<void>()
      const client = await start(t, stall, silent.resolve)
      const asking = stall.ask(client, { signal: new AbortController().signal })
      const ended = assert.rejects(asking, fails(stall.isHidden === true ? 'missing' : 'closed', /./), stall.what)
      await silent.promise
      await client.registry.close()
      await ended
    }),
  )
})

test('a storage that falls silent is named itself', async (t) => {
  const storage = await serve(t, () => undefined)
  const host = await serve(t, (_request, response) => {
    response.writeHead(307, { location: `http://${storage}/bucket/layer` }).end()
  })
  const { source, reference } = createClient(t, host, { timeouts, clock: new HastyClock() })
  await assert.rejects(
    readAll(source.openLayer(reference, layerDescriptor, { signal: new AbortController().signal })),
    fails('timeout', new RegExp(`^${storage} does not answer within 1 s; it was asked for blobs/`)),
  )
})

test('a mirror that falls silent is passed by', async (t) => {
  const mirror = await serve(t, () => undefined)
  const host = await serve(t, answer)
  const { source } = createClient(t, host, { timeouts, mirrors: [`${host}=http://${mirror}`] })
  const image = await source.resolve(parseReference(`${host}/lab/app`), 'linux/amd64', {
    signal: new AbortController().signal,
  })
  assert.equal(image.manifest, manifest)
})

test('a proxy that takes a connection and makes no tunnel is given up', async (t) => {
  const proxy = await serve(t, () => undefined)
  const { source, clock } = createClient(t, 'unused.test', {
    timeouts,
    clock: new HastyClock(),
    environment: { HTTPS_PROXY: `http://${proxy}` },
  })
  const signal = new AbortController().signal
  await assert.rejects(
    source.resolve(parseReference('registry.test/lab/app'), 'linux/amd64', { signal }),
    fails('timeout', /registry\.test does not answer within 1 s/),
  )
  assert.equal(clock.slept.length, 1)
})
