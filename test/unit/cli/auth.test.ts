import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { spawn } from 'node:child_process'
import { temporaryDirectory } from '../../support/temporary.ts'

const main = fileURLToPath(new URL('../../../cli/main.ts', import.meta.url))
const password = 'hunter2:with:colons'
const basic = Buffer.from(`user:${password}`).toString('base64')

/** A control socket in the daemon's place. @returns what the command sends, and what it says */
async function run(
  t: TestContext,
  argv: string[],
  { input = '', env = {} }: { input?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<{ sent: Record<string, unknown> | undefined; status: number | null; said: string }> {
  const socket = join(temporaryDirectory(t), 's')
  let sent: Record<string, unknown> | undefined
  const server = createServer((request, response) => {
    let text = ''
    request.on('data', (piece: Buffer) => (text += piece.toString()))
    request.on('end', () => {
      sent = JSON.parse(text) as Record<string, unknown>
      response.end('{"error":{"code":"missing","message":"no daemon here"}}\n')
    })
  })
  server.listen(socket)
  await once(server, 'listening')
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...argv, '--control', socket], {
    env: { ...process.env, ...env },
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => (said += bytes.toString()))
  child.stdin.end(input)
  const [status] = (await once(child, 'close')) as [number | null]
  server.close()
  return { sent, status, said }
}

function authfile(t: TestContext, config: object | string): string {
  const file = join(temporaryDirectory(t), 'auth.json')
  writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config))
  return file
}

const commands: [string[], (file: string) => string[]][] = [
  ['mount', 'host.test/team/app:1', '/'],
  ['seed', 'host.test/team/app:1'],
  ['seed', 'host.test/team/app:1', '--copies', '2'],
  ['verify', 'host.test/team/app:1'],
  ['push', 'local:disk', 'host.test/team/app:1'],
].map((argv) => [argv, (file) => [...argv, '--authfile', file]])

for (const [argv, withFile] of commands)
  test(`p2pfs ${argv.join(' ')} sends the credentials for the image's registry, and no others`, async (t) => {
    const file = authfile(t, {
      auths: {
        'other.test': { auth: Buffer.from('other:othersecret').toString('base64') },
        'https://host.test/v2/': { auth: basic },
      },
    })
    const { sent } = await run(t, withFile(file))
    assert.deepEqual(sent?.['auth'], { username: 'user', password })
    assert.doesNotMatch(JSON.stringify(sent), /other/)
    const typed = await run(t, [...argv, '--creds-stdin'], { input: `user:${password}\n` })
    assert.deepEqual(typed.sent?.['auth'], { username: 'user', password })
    assert.equal((await run(t, argv)).sent?.['auth'], undefined)
  })

test('identity tokens and credential helpers of an authfile are taken; the helper runs as the user of the command', async (t) => {
  const token = authfile(t, { auths: { 'host.test': { identitytoken: 'refresh' } } })
  const { sent } = await run(t, ['seed', 'host.test/app', '--authfile', token])
  assert.deepEqual(sent?.['auth'], { identityToken: 'refresh' })
  const bin = temporaryDirectory(t)
  mkdirSync(join(bin, 'bin'))
  const helper = join(bin, 'bin', 'docker-credential-lab')
  writeFileSync(helper, '#!/bin/sh\nread server\nprintf \'{"Username":"%s","Secret":"s"}\' "$server"\n')
  chmodSync(helper, 0o755)
  const helped = authfile(t, { credHelpers: { 'host.test': 'lab' } })
  const env = { PATH: `${join(bin, 'bin')}:${process.env['PATH']}` }
  const answer = await run(t, ['seed', 'host.test/app', '--authfile', helped], { env })
  assert.deepEqual(answer.sent?.['auth'], { username: 'host.test', password: 's' })
})

test('what is wrong with an authfile is said, nothing is sent, and nothing of it is quoted', async (t) => {
  const cases: [string, RegExp][] = [
    [authfile(t, `{"auths": {"host.test": {"auth": "${basic}"`), /is not JSON/],
    [authfile(t, { auths: { 'other.test': { auth: basic } } }), /has no credentials for host\.test\/app/],
    ['/nonexistent/auth.json', /cannot read/],
  ]
  for (const [file, message] of cases) {
    const { sent, status, said } = await run(t, ['seed', 'host.test/app', '--authfile', file])
    assert.deepEqual([sent, status], [undefined, 1])
    assert.match(said, message)
    assert.ok(!said.includes(basic) && !said.includes(password), said)
  }
})

test('what is no USER:PASSWORD on standard input is refused, and not quoted', async (t) => {
  for (const input of ['', 'hunter2', ':hunter2', 'user:hunter2\nmore']) {
    const { sent, status, said } = await run(t, ['seed', 'host.test/app', '--creds-stdin'], { input })
    assert.deepEqual([sent, status], [undefined, 2])
    assert.doesNotMatch(said, /hunter2/)
  }
  const both = spawnSync(process.execPath, [main, 'seed', 'a.test/app', '--creds-stdin', '--authfile', '/x'])
  assert.equal(both.status, 2)
})
