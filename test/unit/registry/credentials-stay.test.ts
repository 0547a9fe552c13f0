import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { authorize } from '../../../node/registry/authorization.ts'
import { chooseChallenge } from '../../../node/registry/challenge.ts'
import type { Credentials } from '../../../node/registry/credentials.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { createClient, fails, signal } from '../../support/registry/fault-client.ts'
import { serve } from '../../support/registry/serve.ts'
import { answer, assertImage } from '../../support/registry/small-image.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const secret = 'hunter2'
const user: Credentials = { username: 'u', password: secret, identityToken: undefined }
const basic = `Basic ${Buffer.from(`u:${secret}`).toString('base64')}`

/** All that a request shows of the one who sends it. */
const shown = ({ headers, url }: IncomingMessage): string => JSON.stringify([headers, url])

const bearer = (realm: string): Record<string, string> => ({
  'www-authenticate': `Bearer realm="${realm}",service="s"`,
})

/** A server that has the image and wants no credentials; it remembers what it is shown. */
async function startStorage(t: TestContext, address?: string): Promise<{ host: string; shown: () => string }> {
  const seen: string[] = []
  const host = await serve(
    t,
    (request, response) => {
      seen.push(shown(request))
      answer(request, response)
    },
    address,
  )
  return { host, shown: () => seen.join() }
}

const kinds: [string, Credentials | undefined, (authorization: string | undefined) => boolean][] = [
  ['a password', user, (authorization) => authorization === basic],
  ['a token', undefined, (authorization) => authorization === `Bearer ${secret}`],
  [
    'a token that its owner got elsewhere',
    { username: '', password: '', identityToken: undefined, registryToken: secret },
    (authorization) => authorization === `Bearer ${secret}`,
  ],
]

for (const [what, credentials, isRight] of kinds) {
  test(`${what} for a registry is not shown to another port or host that it redirects to`, async (t) => {
    for (const address of ['127.0.0.1', '127.0.0.2']) {
      const storage = await startStorage(t, address)
      const host = await serve(t, (request, response) => {
        if (request.url?.startsWith('/token') === true) return void response.end(JSON.stringify({ token: secret }))
        if (isRight(request.headers.authorization))
          return void response.writeHead(307, { location: `http://${storage.host}${request.url}` }).end()
        const challenge =
          credentials === user ? { 'www-authenticate': 'Basic' } : bearer(`http://${request.headers.host}/token`)
        response.writeHead(401, challenge).end()
      })
      const find = async (registry: string): Promise<Credentials | undefined> =>
        registry === host ? credentials : undefined
      const { source, reference } = createClient(t, host, { credentials: { find } })
      await assertImage(source, reference)
      // With the authorization known from the start, too.
      await assertImage(source, reference)
      assert.doesNotMatch(storage.shown(), /authorization|hunter2/)
    }
  })
}

test('headers that hosts.toml gives for a server are not shown to another one that it redirects to', async (t) => {
  const storage = await startStorage(t)
  const host = await serve(t, (request, response) => {
    if (request.headers['x-key'] !== secret) return void response.writeHead(403).end()
    response.writeHead(307, { location: `http://${storage.host}${request.url}` }).end()
  })
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, host))
  writeFileSync(join(directory, host, 'hosts.toml'), `server = "http://${host}"\n[header]\nx-key = "${secret}"\n`)
  const { source, reference } = createClient(t, host, { hostsDirectories: [directory] })
  await assertImage(source, reference)
  assert.doesNotMatch(storage.shown(), /hunter2/)
})

/** A registry whose token service redirects to another server, which notes what it is shown. */
async function startRedirectedRealm(
  t: TestContext,
  redirect: (request: IncomingMessage, response: ServerResponse, other: string) => void,
): Promise<{ host: string; shown: () => string }> {
  const seen: string[] = []
  const other = await serve(t, (request, response) => {
    seen.push(shown(request))
    request.on('data', (bytes: Buffer) => seen.push(bytes.toString()))
    response.end('{"token":"t"}')
  })
  const host = await serve(t, (request, response) => {
    if (request.url?.startsWith('/token') === true) return redirect(request, response, other)
    if (request.headers.authorization === 'Bearer t') return answer(request, response)
    response.writeHead(401, bearer(`http://${request.headers.host}/token`)).end()
  })
  return { host, shown: () => seen.join() }
}

for (const status of [302, 303, 307, 308]) {
  test(`a token service that redirects with ${status} does not show a password to the other server`, async (t) => {
    const { host, shown } = await startRedirectedRealm(
      t,
      (request, response, other) =>
        void response.writeHead(status, { location: `http://${other}${request.url}` }).end(),
    )
    const { source, reference } = createClient(t, host, { credentials: { find: async () => user } })
    await assertImage(source, reference)
    assert.match(shown(), /service=s/)
    assert.doesNotMatch(shown(), /authorization|hunter2/)
  })

  test(`a token service that redirects with ${status} does not show a refresh token to the other server`, async (t) => {
    const { host, shown } = await startRedirectedRealm(
      t,
      (request, response, other) =>
        void response.writeHead(status, { location: `http://${other}${request.url}` }).end(),
    )
    const find = async (): Promise<Credentials> => ({ username: '', password: '', identityToken: secret })
    const { source, reference } = createClient(t, host, { credentials: { find } })
    await assert.rejects(
      source.resolve(reference, 'linux/amd64', { signal }),
      fails('unavailable', /is not to see the request/),
    )
    assert.equal(shown(), '')
  })
}

test('credentials in the URL of a realm or a redirect are not sent to anybody', async (t) => {
  const storage = await startStorage(t)
  const tokens: string[] = []
  const host = await serve(t, (request, response) => {
    if (request.url?.startsWith('/token') === true) {
      tokens.push(shown(request))
      return void response.end('{"token":"t"}')
    }
    if (request.headers.authorization !== 'Bearer t')
      return void response.writeHead(401, bearer(`http://them:${secret}@${request.headers.host}/token`)).end()
    response.writeHead(307, { location: `http://them:${secret}@${storage.host}${request.url}` }).end()
  })
  const { source, reference } = createClient(t, host)
  await assertImage(source, reference)
  for (const text of [tokens.join(), storage.shown()]) assert.doesNotMatch(text, /authorization|hunter2|them/)
})

test('a registry that is reached by TLS has no credentials sent to a realm in clear', async () => {
  for (const credentials of [user, { ...user, identityToken: secret }, undefined]) {
    let asked = 0
    const answering = authorize(
      chooseChallenge({ 'www-authenticate': 'Bearer realm="http://auth.test/token"' }),
      {
        http: {
          text: async () => {
            asked++
            return { status: 200, headers: {}, body: '{"token":"t"}' }
          },
        },
        now: () => 0,
      },
      { registry: 'registry.test', scope: 'repository:a:pull', credentials, isSecure: true, signal },
    )
    await assert.rejects(answering, (error) => isP2pfsError(error, 'denied'))
    assert.equal(asked, 0)
  }
})

test('a server that is redirected to in clear gets credentials of its own only if it may be spoken to in clear', async (t) => {
  const seen: (string | undefined)[] = []
  const second = await serve(t, (request, response) => {
    seen.push(request.headers.authorization)
    if (request.headers.authorization === basic) return answer(request, response)
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
  })
  const first = await serve(
    t,
    (request, response) => void response.writeHead(307, { location: `http://${second}${request.url}` }).end(),
  )
  const credentials = { find: async (registry: string) => (registry === second ? user : undefined) }
  const careful = createClient(t, first, { credentials })
  await assert.rejects(careful.source.resolve(careful.reference, 'linux/amd64', { signal }), fails('denied', /./))
  assert.deepEqual(new Set(seen), new Set([undefined]))
  const open = createClient(t, first, { credentials, insecureRegistries: [first, second] })
  await assertImage(open.source, open.reference)
  assert.ok(seen.includes(basic))
})
