import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { makeBundle } from '../../../cli/doctor/bundle.ts'
import { checkDisk, checkHost, checkKernel } from '../../../cli/doctor/host-checks.ts'
import type { Host } from '../../../cli/doctor/host.ts'
import type { Check } from '../../../node/control/api.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const gibibyte = 1024 ** 3
const disk = { type: 0xef53, freeBytes: 50 * gibibyte, sizeBytes: 100 * gibibyte, files: 1000, freeFiles: 900 }
const files: Record<string, string> = {
  '/proc/filesystems': 'nodev\tproc\n\text4\nnodev\toverlay\n\terofs\n',
  '/lib/modules/modules.dep': 'kernel/fs/fuse/fuse.ko.xz:\n',
  '/proc/7/limits': 'Max open files            1048576              1048576              files     \n',
  '/proc/7/cgroup': '0::/system.slice/p2pfs.service\n',
  '/sys/fs/cgroup/system.slice/memory.max': 'max\n',
}

/** A host where all is well, but for what is changed. */
const hostWith = (changes: Partial<Host> = {}, texts: Record<string, string | undefined> = {}): Host => ({
  kernelRelease: '6.12.1',
  readText: async (given) => {
    const path = given.replace(/^\/lib\/modules\/[^/]+/, '/lib/modules')
    return await Promise.resolve(path in texts ? texts[path] : files[path])
  },
  tryOpen: async () => await Promise.resolve('ok'),
  filesystemOf: async () => await Promise.resolve(disk),
  hasTool: async () => await Promise.resolve(true),
  ...changes,
})

async function check(host: Host): Promise<Record<string, Check>> {
  const checks = await checkHost(host, { stateDir: '/state', pid: 7 })
  return Object.fromEntries(checks.map((each) => [each.name, each]))
}

test('a host that has all it needs is found well', async () => {
  const checks = await check(hostWith())
  for (const { name, state, advice } of Object.values(checks))
    assert.deepEqual([state, advice], ['ok', undefined], name)
  assert.equal(Object.keys(checks).length, 10)
})

const lacks: [string, Host, string, Check['state'], RegExp, RegExp][] = [
  ['an old kernel', hostWith({ kernelRelease: '5.4.0-generic' }), 'kernel', 'problem', /5\.4/, /5\.12/],
  ['a kernel that resends nothing', hostWith({ kernelRelease: '6.8.0' }), 'kernel', 'warning', /6\.9/, /6\.12/],
  [
    'no EROFS',
    hostWith({}, { '/proc/filesystems': '\toverlay\n' }),
    'filesystems',
    'warning',
    /erofs \(for trees\)/,
    /modprobe -a erofs/,
  ],
  ['no FUSE', hostWith({}, { '/lib/modules/modules.dep': '' }), 'filesystems', 'problem', /fuse/, /modprobe -a fuse/],
  [
    'no perl',
    hostWith({ hasTool: async (name) => await Promise.resolve(name !== 'perl') }),
    'tools',
    'warning',
    /no perl/,
    /apt install perl-base/,
  ],
  [
    'no mount',
    hostWith({ hasTool: async (name) => await Promise.resolve(name !== 'mount') }),
    'tools',
    'problem',
    /no mount/,
    /apt install mount/,
  ],
  [
    'no device',
    hostWith({ tryOpen: async (path) => await Promise.resolve(path === '/dev/fuse' ? 'missing' : 'ok') }),
    '/dev/fuse',
    'problem',
    /not there/,
    /modprobe fuse/,
  ],
  [
    'no right to the device',
    hostWith({ tryOpen: async (path) => await Promise.resolve(path === '/dev/fuse' ? 'denied' : 'ok') }),
    '/dev/fuse',
    'problem',
    /cannot be opened/,
    /root/,
  ],
  [
    'no loop devices',
    hostWith({ tryOpen: async (path) => await Promise.resolve(path === '/dev/fuse' ? 'ok' : 'missing') }),
    'loop devices',
    'warning',
    /--size/,
    /modprobe loop/,
  ],
  [
    'few files',
    hostWith({}, { '/proc/7/limits': 'Max open files  1024  4096  files' }),
    'open files',
    'warning',
    /1024/,
    /LimitNOFILE/,
  ],
  [
    'very few files',
    hostWith({}, { '/proc/7/limits': 'Max open files  256  4096  files' }),
    'open files',
    'problem',
    /256/,
    /LimitNOFILE/,
  ],
  [
    'little memory',
    hostWith({}, { '/sys/fs/cgroup/system.slice/memory.max': '268435456\n' }),
    'memory',
    'problem',
    /256\.0 MiB/,
    /MemoryMax/,
  ],
  [
    'limits that cannot be read',
    hostWith({}, { '/proc/7/limits': undefined }),
    'open files',
    'left-out',
    /cannot be read/,
    /^$/,
  ],
]
for (const [what, host, name, state, found, advice] of lacks)
  test(`${what} is said, with what to do`, async () => {
    const { [name]: bad, ...others } = await check(host)
    assert.equal(bad!.state, state)
    assert.match(bad!.found, found)
    assert.match(bad!.advice ?? '', advice)
    for (const each of Object.values(others)) assert.equal(each.state, 'ok', each.name)
  })

test('a disk is looked at for room, inodes and its kind', () => {
  const states = (changes: Partial<typeof disk>): string[] =>
    checkDisk({ ...disk, ...changes }, '/state').map(({ state }) => state)
  assert.deepEqual(states({ freeBytes: 5 * gibibyte }), ['warning', 'ok', 'ok'])
  assert.deepEqual(states({ freeBytes: gibibyte / 2 }), ['problem', 'ok', 'ok'])
  assert.deepEqual(states({ freeFiles: 10 }), ['ok', 'problem', 'ok'])
  assert.deepEqual(states({ files: 0, freeFiles: 0 }), ['ok', 'ok', 'ok'])
  assert.deepEqual(states({ type: 0x01021994 }), ['ok', 'ok', 'warning'])
  assert.deepEqual(states({ type: 0x12345 }), ['ok', 'ok', 'ok'])
  assert.equal(checkDisk(undefined, '/state')[0]!.state, 'left-out')
})

test('the version of a kernel is compared by number', () => {
  for (const [kernelRelease, state] of [
    ['6.10.0', 'ok'],
    ['10.0', 'ok'],
    ['5.12.3', 'warning'],
    ['5.9', 'problem'],
  ])
    assert.equal(checkKernel({ kernelRelease: kernelRelease! }).state, state, kernelRelease)
})

const secret = 's3cr3t'
const main = fileURLToPath(new URL('../../../cli/main.ts', import.meta.url))

async function p2pfs(...argv: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return await new Promise((resolve) =>
    execFile(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...argv], (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr }),
    ),
  )
}

test('a bundle has all its parts, and no secret in any of them', async (t) => {
  const directory = temporaryDirectory(t)
  const socket = join(directory, 'control.sock')
  const log = join(directory, 'log')
  writeFileSync(log, `{"message":"request failed","url":"https://me:${secret}@host/","auth":"${secret}"}\n`)
  const checks = [
    { name: 'registry', state: 'problem', found: `refused: Bearer ${secret}AA`, advice: `token=${secret}` },
  ]
  const config = { region: 'lab', registryMirror: [`docker.io=https://me:${secret}@mirror`], somePassword: secret }
  const answers: Record<string, string> = {
    '/v1/status': JSON.stringify({
      daemonPid: process.pid,
      name: 'host',
      imports: [{ reference: `https://${secret}@x` }],
    }),
    '/v1/doctor': JSON.stringify({ checks, stateDir: directory, config }),
    '/metrics': `p2pfs_up{url="https://me:${secret}@host"} 1\n`,
  }
  const server = createServer((request, response) => {
    const type = request.url === '/metrics' ? 'text/plain' : 'application/x-ndjson'
    const answer = answers[request.url!]!
    response.writeHead(200, { 'content-type': type }).end(type === 'text/plain' ? answer : `{"result":${answer}}\n`)
  }).listen(socket)
  await once(server, 'listening')
  t.after(() => server.close())
  const bundle = join(directory, 'b.tgz')
  const { status, stdout, stderr } = await p2pfs('doctor', 'x', '--control', socket, '--bundle', bundle, '--log', log)
  assert.equal(status, 1, 'there is a problem')
  assert.match(stdout, /^problem +registry/m)
  assert.match(stderr, /b\.tgz is written; look into it/)
  assert.equal(statSync(bundle).mode & 0o777, 0o600)
  const names = execFileSync('tar', ['-tzf', bundle], { encoding: 'utf8' }).trim().split('\n')
  assert.deepEqual(
    names,
    ['checks.json', 'config.json', 'status.json', 'log.jsonl', 'metrics.txt'].map((name) => `p2pfs-doctor/${name}`),
  )
  for (const name of names) {
    const text = execFileSync('tar', ['-xzOf', bundle, name], { encoding: 'utf8' })
    assert.ok(!text.includes(secret), `${name}: ${text}`)
    assert.ok(text.includes('[redacted]'), `${name}: ${text}`)
  }
  assert.equal((await p2pfs('doctor', '--control', socket, '--bundle', bundle)).status, 1, 'nothing is overwritten')
})

test('without a daemon it looks at what it can, and says what it left out', async (t) => {
  const { status, stdout } = await p2pfs('doctor', 'x', '--json', '--control', join(temporaryDirectory(t), 'none'))
  const { checks } = JSON.parse(stdout) as { checks: Check[] }
  const states = checks.map(({ state }) => state)
  assert.equal(status, states.includes('problem') ? 1 : 0)
  const { state, found } = checks.at(-1)!
  assert.equal(state, 'left-out')
  assert.match(found, /no daemon at .*Left out: region, reached by peers, clock, registry, layers$/)
})

test('--log without --bundle is wrong usage', async () => {
  assert.equal((await p2pfs('doctor', '--log', 'x')).status, 2)
})

test('a bundle is a tar that tar reads, whatever the sizes', (t) => {
  const file = join(temporaryDirectory(t), 'b.tgz')
  const texts = { empty: '', block: 'x'.repeat(512), more: 'é'.repeat(1000) }
  writeFileSync(file, makeBundle({ ...texts, absent: undefined }, 0))
  for (const [name, text] of Object.entries(texts))
    assert.equal(execFileSync('tar', ['-xzOf', file, `p2pfs-doctor/${name}`], { encoding: 'utf8' }), text)
})
