import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { test, type TestContext } from 'node:test'
import type { Credentials } from '../../../node/registry/credentials.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { createClient, fails, signal, type Client } from '../../support/registry/fault-client.ts'
import { serve } from '../../support/registry/serve.ts'
import { answer, assertImage } from '../../support/registry/small-image.ts'

const basic = (username: string, password: string): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

const user = (username: string, password: string): Credentials => ({ username, password, identityToken: undefined })

/** A registry of passwords that refuses an old one with `status`, as ECR does after 12 hours. */
async function startPasswordRegistry(
  t: TestContext,
  status: 401 | 403,
): Promise<
  Client & { accepted: { password: string }; helper: { password: string; asked: number }; asked: () => number }
> {
  const accepted = { password: 'one' }
  const helper = { password: 'one', asked: 0 }
  let asked = 0
  const host = await serve(t, (request, response) => {
    asked++
    const { authorization } = request.headers
    if (authorization === basic('AWS', accepted.password)) return answer(request, response)
    const hasChallenge = authorization === undefined || status === 401
    const challenge = { 'www-authenticate': 'Basic realm="x",service="ecr.amazonaws.com"' }
    response.writeHead(authorization === undefined ? 401 : status, hasChallenge ? challenge : {})
    response.end('{"errors":[{"code":"DENIED"}]}')
  })
  const find = async (): Promise<Credentials> => {
    helper.asked++
    return user('AWS', helper.password)
  }
  const client = createClient(t, host, { credentials: { find } })
  return { ...client, accepted, helper, asked: () => asked }
}

for (const status of [401, 403] as const) {
  test(`a password that has expired, which the registry says with ${status}, is asked of the helper again`, async (t) => {
    const { source, reference, accepted, helper } = await startPasswordRegistry(t, status)
    await assertImage(source, reference)
    for (const password of ['two', 'three']) {
      accepted.password = password
      helper.password = password
      await assertImage(source, reference)
    }
    assert.equal(helper.asked, 3, 'once for each password')
  })
}

test('a repository that is forbidden asks the helper once in a while, and not for every read', async (t) => {
  const { source, reference, accepted, helper, asked, clock } = await startPasswordRegistry(t, 403)
  await assertImage(source, reference)
  accepted.password = 'another'
  const before = asked()
  for (let i = 0; i < 5; i++)
    await assert.rejects(source.resolve(reference, 'linux/amd64', { signal }), fails('denied', /docker login/))
  assert.deepEqual([helper.asked, asked() - before], [2, 5])
  clock.nowMs += 6_000
  helper.password = 'another'
  await assertImage(source, reference)
})

test('a token that is refused with 403 is renewed, once for each refusal', async (t) => {
  let tokens = 0
  let valid = ''
  let isForbidden = false
  const host = await serve(t, (request, response) => {
    if (request.url?.startsWith('/token') === true) {
      valid = `token-${++tokens}`
      return void response.end(JSON.stringify({ token: valid, expires_in: 3600 }))
    }
    if (request.headers.authorization === `Bearer ${valid}` && !isForbidden) return answer(request, response)
    if (request.headers.authorization !== undefined) return void response.writeHead(403).end()
    const realm = `Bearer realm="http://${request.headers.host}/token",service="s"`
    response.writeHead(401, { 'www-authenticate': realm }).end()
  })
  const { source, reference } = createClient(t, host)
  await assertImage(source, reference)
  valid = 'revoked'
  await assertImage(source, reference)
  assert.equal(tokens, 2)
  isForbidden = true
  for (let i = 0; i < 3; i++)
    await assert.rejects(source.resolve(reference, 'linux/amd64', { signal }), fails('denied', /docker login/))
  assert.equal(tokens, 3)
})

/** A registry that sends all of its API to another one, which wants a token of its own. */
async function startRedirectingRegistry(
  t: TestContext,
  find: (registry: string) => Promise<Credentials | undefined>,
): Promise<Client & { first: string; second: string; seen: string[] }> {
  const seen: string[] = []
  const note = (name: string, { headers, url }: IncomingMessage): void =>
    void seen.push(`${name} ${url?.split('?')[0]?.split('/')[1]} ${headers.authorization ?? 'anonymous'}`)
  const second = await serve(t, (request, response) => {
    note('second', request)
    if (request.url?.startsWith('/token') === true) return void response.end('{"token":"second-token"}')
    if (request.headers.authorization === 'Bearer second-token') return answer(request, response)
    const realm = `Bearer realm="http://${request.headers.host}/token",service="second"`
    response.writeHead(401, { 'www-authenticate': realm }).end()
  })
  const first = await serve(t, (request, response: ServerResponse) => {
    note('first', request)
    if (request.headers.authorization !== basic('first', 'secret'))
      return void response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
    response.writeHead(307, { location: `http://${second}${request.url}` }).end()
  })
  const client = createClient(t, first, {
    credentials: { find: async (registry) => await find(registry) },
    insecureRegistries: [first, second],
  })
  return { ...client, first, second, seen }
}

test('a registry that redirects to another one is followed, with credentials of each for itself alone', async (t) => {
  const asked = new Set<string>()
  const { source, reference, first, second, seen } = await startRedirectingRegistry(t, async (registry) => {
    asked.add(registry)
    return registry === first ? user('first', 'secret') : user('second', 'own')
  })
  await assertImage(source, reference)
  assert.deepEqual(asked, new Set([first, second]))
  assert.deepEqual(
    new Set(seen),
    new Set([
      'first v2 anonymous',
      `first v2 ${basic('first', 'secret')}`,
      'second v2 anonymous',
      `second token ${basic('second', 'own')}`,
      'second v2 Bearer second-token',
    ]),
  )
  assert.equal(seen.filter((line) => line.endsWith('anonymous')).length, 2, 'each is asked without once')
})

test('a registry without credentials for the one that it redirects to gets an anonymous token there', async (t) => {
  const find = async (registry: string): Promise<Credentials | undefined> =>
    registry === first ? user('first', 'secret') : undefined
  const { source, reference, first, seen } = await startRedirectingRegistry(t, async (registry) => await find(registry))
  await assertImage(source, reference)
  assert.ok(seen.includes('second token anonymous'))
})

test('a tag that the other registry lacks is missing there', async (t) => {
  const second = await serve(t, (_request, response) => void response.writeHead(404).end())
  const first = await serve(t, (request, response) => {
    response.writeHead(307, { location: `http://${second}${request.url}` }).end()
  })
  const { source, reference } = createClient(t, first)
  await assert.rejects(
    source.resolve(reference, 'linux/amd64', { signal }),
    fails('missing', new RegExp(`^${second} has no tag latest`)),
  )
})

test('a registry cannot have another one written to with the credentials for that one', async (t) => {
  const seen: (string | undefined)[] = []
  const second = await serve(t, (request, response) => {
    seen.push(request.headers.authorization)
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
  })
  for (const isUpload of [true, false]) {
    const first = await serve(t, (request, response) => {
      if (request.method === 'HEAD') return void response.writeHead(404).end()
      const location = `http://${second}/v2/other/app/blobs/uploads/1`
      response.writeHead(isUpload ? 202 : 307, { location }).end()
    })
    const { source, reference } = createClient(t, first, { credentials: { find: async () => user('u', 'p') } })
    await assert.rejects(source.pushBlob(reference, Buffer.from('pushed'), { signal }), (error) =>
      isP2pfsError(error, 'denied', 'unavailable'),
    )
  }
  assert.deepEqual(new Set(seen), new Set([undefined]))
})

test('a push to a registry that redirects goes to the other one', async (t) => {
  const stored: string[] = []
  const second = await serve(t, (request, response) => {
    const { method, url = '' } = request
    stored.push(`${method} ${url.split('?')[0]}`)
    if (method === 'HEAD') response.writeHead(404).end()
    else if (method === 'POST') response.writeHead(202, { location: '/v2/lab/app/blobs/uploads/1' }).end()
    else response.writeHead(201).end()
  })
  const first = await serve(t, (request, response) => {
    response.writeHead(307, { location: `http://${second}${request.url}` }).end()
  })
  const { source, reference } = createClient(t, first)
  const { digest } = await source.pushBlob(reference, Buffer.from('pushed'), { signal })
  assert.deepEqual(stored, [
    `HEAD /v2/lab/app/blobs/${digest}`,
    'POST /v2/lab/app/blobs/uploads/',
    'PUT /v2/lab/app/blobs/uploads/1',
  ])
})

test('a token that its owner got elsewhere is sent as it is, whatever the registry asks for', async (t) => {
  for (const challenge of ['Basic realm="x"', 'Bearer realm="http://127.0.0.1:1/token"']) {
    const host = await serve(t, (request, response) => {
      if (request.headers.authorization === 'Bearer given') answer(request, response)
      else response.writeHead(401, { 'www-authenticate': challenge }).end()
    })
    const find = async (): Promise<Credentials> => ({ ...user('', ''), registryToken: 'given' })
    const { source, reference } = createClient(t, host, { credentials: { find } })
    await assertImage(source, reference)
  }
})

test('of two challenges in one header, in either order, that for a token is answered', async (t) => {
  for (const isTokenFirst of [true, false]) {
    const scopes: (string | null)[] = []
    const host = await serve(t, (request, response) => {
      const url = new URL(request.url ?? '', 'http://x')
      if (url.pathname === '/token') {
        scopes.push(url.searchParams.get('scope'))
        return void response.end('{"token":"t"}')
      }
      if (request.headers.authorization === 'Bearer t') return answer(request, response)
      const challenges = [
        `Bearer realm="http://${request.headers.host}/token", scope="", service=s`,
        'Basic realm="a, b"',
      ]
      const header = (isTokenFirst ? challenges : challenges.toReversed()).join(', ')
      response.writeHead(401, { 'www-authenticate': header }).end()
    })
    const { source, reference } = createClient(t, host)
    await assertImage(source, reference)
    assert.deepEqual(scopes, ['repository:lab/app:pull'], 'an empty scope is none')
  }
})

test('a challenge for a token without a realm leaves that for a password', async (t) => {
  const host = await serve(t, (request, response) => {
    if (request.headers.authorization === basic('u', 'p')) return answer(request, response)
    response.writeHead(401, { 'www-authenticate': ['Negotiate', 'Bearer', 'Basic realm="x"'] }).end()
  })
  const { source, reference } = createClient(t, host, { credentials: { find: async () => user('u', 'p') } })
  await assertImage(source, reference)
})

for (const status of [404, 403]) {
  test(`a registry that hides private images with ${status} is asked at its root how to log in`, async (t) => {
    const paths: string[] = []
    const host = await serve(t, (request, response) => {
      paths.push(request.url ?? '')
      if (request.headers.authorization === basic('u', 'p')) return answer(request, response)
      if (request.url === '/v2/') response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
      else response.writeHead(status).end()
    })
    const { source, reference } = createClient(t, host, { credentials: { find: async () => user('u', 'p') } })
    await assertImage(source, reference)
    assert.equal(paths.filter((path) => path === '/v2/').length, 1)
    const anonymous = createClient(t, host)
    paths.length = 0
    const code = status === 404 ? 'missing' : 'denied'
    await assert.rejects(anonymous.source.resolve(reference, 'linux/amd64', { signal }), fails(code, /./))
    assert.deepEqual(paths, ['/v2/lab/app/manifests/latest'], 'without credentials there is nothing to ask')
  })
}

test('an open registry is asked at its root once in a while, however often it lacks something', async (t) => {
  let roots = 0
  const host = await serve(t, (request, response) => {
    if (request.url === '/v2/') roots++
    response.writeHead(request.url === '/v2/' ? 200 : 404).end()
  })
  const { source, reference } = createClient(t, host, { credentials: { find: async () => user('u', 'p') } })
  for (let i = 0; i < 3; i++)
    await assert.rejects(source.resolve(reference, 'linux/amd64', { signal }), fails('missing', /./))
  assert.equal(roots, 1)
})
