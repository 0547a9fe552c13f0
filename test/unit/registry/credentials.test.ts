import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { createLog, type Log } from '../../../node/base/log.ts'
import { DockerCredentials } from '../../../node/registry/credentials.ts'
import { eventually } from '../../support/deadline.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { createClient, fails, layer, signal, startRegistry } from '../../support/registry/fault-client.ts'

const secret = 'hunter2-very-secret'
const basic = (username: string, password = secret): string => Buffer.from(`${username}:${password}`).toString('base64')

/** A log that is remembered. */
function remember(): { log: Log; lines: string[] } {
  const lines: string[] = []
  return { log: createLog('debug', (line) => void lines.push(line)), lines }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** A configuration, and credential helpers on the path that print what is given. */
function configure(t: TestContext, config: object | string, helpers: Record<string, string> = {}): string {
  const directory = temporaryDirectory(t)
  const file = join(directory, 'config.json')
  writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config))
  const programs = join(directory, 'bin')
  mkdirSync(programs)
  for (const [name, script] of Object.entries(helpers)) {
    const path = join(programs, `docker-credential-${name}`)
    writeFileSync(path, `#!/bin/sh\n${script}\n`)
    chmodSync(path, 0o755)
  }
  const before = process.env['PATH']
  process.env['PATH'] = `${programs}:${before}`
  t.after(() => void (process.env['PATH'] = before))
  return file
}

test('finds what docker login left: of the registry, of Docker Hub, in fields, as a token', async (t) => {
  const { log, lines } = remember()
  const auths = {
    'host:5000': { auth: basic('a') },
    'https://index.docker.io/v1/': { auth: basic('hub') },
    'https://with-scheme.example': { username: 'b', password: secret },
    'token.example': { auth: basic('', ''), identitytoken: 'refresh' },
    'odd.example': { auth: 5, username: null },
  }
  const credentials = new DockerCredentials({ log }, { file: configure(t, { auths }) })
  assert.deepEqual(await credentials.find('host:5000', { repository: 'team/app', signal }), {
    username: 'a',
    password: secret,
    identityToken: undefined,
    registryToken: undefined,
  })
  assert.equal((await credentials.find('docker.io', { repository: 'team/app', signal }))?.username, 'hub')
  assert.equal((await credentials.find('with-scheme.example', { repository: 'team/app', signal }))?.username, 'b')
  assert.equal((await credentials.find('token.example', { repository: 'team/app', signal }))?.identityToken, 'refresh')
  assert.equal(await credentials.find('odd.example', { repository: 'team/app', signal }), undefined)
  assert.equal(await credentials.find('nobody.example', { repository: 'team/app', signal }), undefined)
  assert.deepEqual(lines, [])
})

test('asks the helper of the registry, then the file, then the store', async (t) => {
  const file = configure(
    t,
    { credHelpers: { 'a.example': 'own' }, credsStore: 'store', auths: { 'b.example': { auth: basic('file') } } },
    {
      own: `cat >/dev/null; echo '{"Username":"<token>","Secret":"${secret}"}'`,
      store: `read server; echo "{\\"Username\\":\\"$server\\",\\"Secret\\":\\"${secret}\\"}"`,
    },
  )
  const credentials = new DockerCredentials(remember(), { file })
  assert.deepEqual(await credentials.find('a.example', { repository: 'team/app', signal }), {
    username: '',
    password: '',
    identityToken: secret,
  })
  assert.equal((await credentials.find('b.example', { repository: 'team/app', signal }))?.username, 'file')
  assert.equal((await credentials.find('c.example', { repository: 'team/app', signal }))?.username, 'c.example')
})

test('a helper that has none is no failure; one that fails is warned of once, until it works', async (t) => {
  const file = configure(
    t,
    { credHelpers: { 'none.example': 'none', 'bad.example': 'bad', 'gone.example': 'gone', 'cut.example': 'cut' } },
    {
      none: `echo 'credentials not found in native keychain'; exit 1`,
      bad: `[ -e "$0.works" ] && echo '{"Username":"u","Secret":"p"}' && exit 0; echo '{"Secret":"${secret}"'; exit 1`,
      cut: `echo '{"Username":"u","Secret":"${secret}'`,
    },
  )
  const { log, lines } = remember()
  const credentials = new DockerCredentials({ log }, { file })
  assert.equal(await credentials.find('none.example', { repository: 'team/app', signal }), undefined)
  assert.deepEqual(lines, [])
  for (const host of ['bad.example', 'gone.example', 'cut.example']) {
    lines.length = 0
    for (let i = 0; i < 3; i++)
      assert.equal(await credentials.find(host, { repository: 'team/app', signal }), undefined)
    assert.equal(lines.length, 1, lines.join(''))
    assert.match(lines[0]!, /credential helper failed; trying without credentials/)
    assert.doesNotMatch(lines[0]!, new RegExp(secret.slice(0, 8)))
  }
  const marker = join(file, '../bin/docker-credential-bad.works')
  writeFileSync(marker, '')
  assert.equal((await credentials.find('bad.example', { repository: 'team/app', signal }))?.username, 'u')
})

const forms: [string, (host: string) => object][] = [
  ['HOST', (host) => ({ auths: { [host]: { auth: basic('u') } } })],
  ['https://HOST', (host) => ({ auths: { [`https://${host}`]: { auth: basic('u') } } })],
  ['https://HOST/v1/', (host) => ({ auths: { [`https://${host}/v1/`]: { auth: basic('u') } } })],
  ['https://HOST/v2/', (host) => ({ auths: { [`https://${host}/v2/`]: { auth: basic('u') } } })],
  ['http://HOST/v2', (host) => ({ auths: { [`http://${host}/v2`]: { auth: basic('u') } } })],
  ['HOST/v1/', (host) => ({ auths: { [`${host}/v1/`]: { auth: basic('u') } } })],
  ['HOST/NAMESPACE', (host) => ({ auths: { [`${host}/team`]: { auth: basic('u') } } })],
  ['HOST/REPOSITORY', (host) => ({ auths: { [`${host}/team/app`]: { auth: basic('u') } } })],
  ['HOST in capitals', (host) => ({ auths: { [host.toUpperCase()]: { auth: basic('u') } } })],
  ['auth without padding', (host) => ({ auths: { [host]: { auth: basic('u').replace(/=+$/, '') } } })],
  ['a null entry before another', (host) => ({ auths: { [host]: null, [`${host}/v2/`]: { auth: basic('u') } } })],
]
for (const [form, config] of forms) {
  for (const host of ['host.example:5000', 'docker.io']) {
    test(`credentials stored as ${form} are found for ${host}`, async (t) => {
      const credentials = new DockerCredentials(remember(), { file: configure(t, config(host)) })
      assert.equal((await credentials.find(host, { repository: 'team/app', signal }))?.username, 'u')
    })
  }
}

test('the names of Docker Hub are one', async (t) => {
  for (const key of [
    'https://index.docker.io/v1/',
    'https://index.docker.io/v2/',
    'index.docker.io',
    'registry-1.docker.io',
  ]) {
    const credentials = new DockerCredentials(remember(), {
      file: configure(t, { auths: { [key]: { auth: basic('u') } } }),
    })
    assert.equal((await credentials.find('docker.io', { repository: 'team/app', signal }))?.username, 'u', key)
  }
})

test('credentials of the namespace win over those of the registry, and are for nothing else', async (t) => {
  const auths = {
    'host.example': { auth: basic('all') },
    'host.example/team': { auth: basic('team') },
    'host.example/team/app': { auth: basic('app') },
  }
  const credentials = new DockerCredentials(remember(), { file: configure(t, { auths }) })
  for (const [repository, username] of [
    ['team/app', 'app'],
    ['team/app/part', 'app'],
    ['team/application', 'team'],
    ['teams/app', 'all'],
  ] as const)
    assert.equal((await credentials.find('host.example', { repository, signal }))?.username, username, repository)
})

test('the store is asked by the name that docker login left in the file', async (t) => {
  const store = `read s; [ "$s" = https://host.example/v1/ ] && echo '{"Username":"u","Secret":"p"}' && exit 0
echo 'credentials not found in native keychain'; exit 1`
  const file = configure(t, { auths: { 'https://host.example/v1/': {} }, credsStore: 'store' }, { store })
  const credentials = new DockerCredentials(remember(), { file })
  assert.equal((await credentials.find('host.example', { repository: 'team/app', signal }))?.username, 'u')
})

test('a helper that hangs is ended with all that it started, and not asked again for a while', async (t) => {
  const file = configure(
    t,
    { credsStore: 'hang' },
    { hang: `echo asked >> "$0.log"; sleep 60 & echo $! > "$0.pid"; wait` },
  )
  const { log, lines } = remember()
  let nowMs = 0
  const credentials = new DockerCredentials({ log }, { file, helperTimeoutMs: 300, now: () => nowMs })
  const find = async (): Promise<unknown> => await credentials.find('host.example', { repository: 'team/app', signal })
  const program = join(file, '../bin/docker-credential-hang')
  assert.equal(await find(), undefined)
  assert.match(lines[0]!, /docker-credential-hang does not answer within 0.3 s/)
  const pid = Number(readFileSync(`${program}.pid`, 'utf8'))
  await eventually('the program that the helper started ends', async () => (isRunning(pid) ? undefined : true), {
    timeoutMs: 5_000,
  })
  assert.equal(await find(), undefined)
  nowMs = 61_000
  assert.equal(await find(), undefined)
  assert.equal(readFileSync(`${program}.log`, 'utf8'), 'asked\nasked\n')
})

test('a helper that has answered is not waited for, whatever it leaves running', async (t) => {
  const file = configure(
    t,
    { credsStore: 'fork' },
    { fork: `sleep 60 & echo $! > "$0.pid"; echo '{"Username":"u","Secret":"p"}'` },
  )
  const credentials = new DockerCredentials(remember(), { file })
  assert.equal((await credentials.find('host.example', { repository: 'team/app', signal }))?.username, 'u')
  process.kill(Number(readFileSync(join(file, '../bin/docker-credential-fork.pid'), 'utf8')), 'SIGKILL')
})

test('a caller that gives up does not wait for a helper', async (t) => {
  const file = configure(t, { credsStore: 'hang' }, { hang: 'exec sleep 60' })
  const credentials = new DockerCredentials(remember(), { file })
  const options = { repository: 'team/app', signal: AbortSignal.timeout(100) }
  await assert.rejects(credentials.find('host.example', options), { name: 'TimeoutError' })
})

test('a configuration that is no JSON is warned of once, without a word of what is in it', async (t) => {
  const { log, lines } = remember()
  const credentials = new DockerCredentials(
    { log },
    { file: configure(t, `{"auths":{"a":{"auth":"${basic('u')}"}} oops`) },
  )
  for (let i = 0; i < 3; i++) assert.equal(await credentials.find('a', { repository: 'team/app', signal }), undefined)
  assert.equal(lines.length, 1)
  assert.doesNotMatch(lines[0]!, new RegExp(basic('u').slice(0, 6)))
})

test('no password, token or signed URL is in a log or in an error, whatever goes wrong', async (t) => {
  const server = await startRegistry(t, {
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    users: [{ username: 'u', password: secret }],
    redirectBlobs: { lifeMs: 60_000 },
  })
  const { log, lines } = remember()
  const { range, blob } = createClient(t, server.authority, {
    log,
    credentials: { find: async () => ({ username: 'u', password: secret, identityToken: undefined }) },
    mirrors: [`${server.authority}=http://127.0.0.1:1`],
  })
  assert.deepEqual(await range(0, 10), layer.subarray(0, 10))
  const said: string[] = []
  const keep = (error: unknown): void =>
    void said.push(
      JSON.stringify(error),
      String(error),
      String((error as Error).stack),
      JSON.stringify((error as { details?: unknown }).details),
      String((error as Error).cause),
    )
  for (const fault of [
    { status: 403 },
    { status: 503 },
    { status: 400 },
    { path: /signed/, status: 403 },
    { path: /signed/, resetAfterBytes: 10 },
    { path: /signed/, corruptByteAt: 0 },
    { path: /token/, status: 500 },
    { path: /token/, status: 401 },
  ]) {
    server.faults.clear()
    server.faults.add(fault)
    server.front.access.revokeTokens()
    await blob().catch(keep)
    await range(0, 10).catch(keep)
  }
  assert.ok(said.length > 30)
  const text = [...said, ...lines].join('\n')
  for (const word of [secret, basic('u'), 'signature=', 'Bearer ']) assert.ok(!text.includes(word), word)
})

test('what is wrong with the credentials is said with what to do', async (t) => {
  const server = await startRegistry(t, {
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    users: [{ username: 'u', password: secret }],
  })
  await assert.rejects(createClient(t, server.authority).range(0, 10), fails('denied', /log in with docker login 127/))
  const wrong = createClient(t, server.authority, {
    credentials: { find: async () => ({ username: 'u', password: 'wrong', identityToken: undefined }) },
  })
  await assert.rejects(wrong.range(0, 10), fails('denied', /not accepted: log in with docker login/))
  const refreshed = createClient(t, server.authority, {
    credentials: { find: async () => ({ username: '', password: '', identityToken: secret }) },
  })
  assert.deepEqual(await refreshed.range(0, 10), layer.subarray(0, 10))
})

test('a refresh token does not follow a redirect to another host', async (t) => {
  const server = await startRegistry(t, {
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    users: [{ username: 'u', password: secret }],
  })
  const other = await startRegistry(t)
  server.front.redirectToken = `http://${other.authority}/token`
  const { range } = createClient(t, server.authority, {
    credentials: { find: async () => ({ username: '', password: '', identityToken: secret }) },
  })
  await assert.rejects(range(0, 10), fails('unavailable', /not to see the request/))
  assert.deepEqual(other.front.log, [])
})

test('a registry is named by an entry of its own, and not by a store of credentials for any', async (t) => {
  const { log } = remember()
  const named = async (config: object, registry: string, repository = 'team/app'): Promise<boolean> =>
    await new DockerCredentials({ log }, { file: configure(t, config) }).names(registry, { repository })
  const auth = basic('u')
  const empty = { 'host.example': {}, 'https://index.docker.io/v1/': {} }
  for (const [config, registry, is] of [
    [{ auths: { 'host:5000': { auth } } }, 'host:5000', true],
    [{ auths: { 'host:5000': { auth } } }, 'host:5001', false],
    [{ auths: { 'https://index.docker.io/v1/': { auth } } }, 'docker.io', true],
    [{ credHelpers: { 'host.example': 'store' } }, 'host.example', true],
    [{ credHelpers: { 'host.example': 'store' } }, 'other.example', false],
    [{ credsStore: 'store' }, 'host.example', false],
    [{ credsStore: 'store', auths: empty }, 'host.example', true],
    [{ credsStore: 'store', auths: empty }, 'docker.io', true],
    [{ credsStore: 'store', auths: empty }, 'other.example', false],
    // Such as docker logout leaves.
    [{ auths: empty }, 'host.example', false],
    [{}, 'host.example', false],
  ] as const)
    assert.equal(await named(config, registry), is, JSON.stringify([config, registry]))
  const part = { auths: { 'host.example/team': { auth } } }
  assert.equal(await named(part, 'host.example'), true)
  assert.equal(await named(part, 'host.example', 'other/app'), false)
})
