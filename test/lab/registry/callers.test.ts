import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { run } from '../../../netlab/hosts/process.ts'
import { oddImage } from '../../../netlab/images/images.ts'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { dropPageCache, loseChunks } from '../lost-chunks.ts'
import { startDockerRegistry } from './docker-registry.ts'

/** `htpasswd -B` of user:secret. */
const users = 'user:$2y$05$FuMLR6MJGBT9iOo36BoOpOZf9r0B4TZkLD.mIFP7LkJKOkk0j4ZZ.\n'
const basic = Buffer.from('user:secret').toString('base64')

/** A private image in a registry, and a region of two hosts that have no credentials for it. */
async function startRegion(t: TestContext, kind: 'htpasswd' | 'token server') {
  const { layoutDirectory, tag } = await oddImage()
  let authority: string
  if (kind === 'htpasswd') {
    authority = await startDockerRegistry(t, users)
    await run('skopeo', [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--preserve-digests',
      '--dest-tls-verify=false',
      '--dest-creds=user:secret',
      `oci:${layoutDirectory}:${tag}`,
      `docker://${authority}/team/app:1`,
    ])
  } else {
    const registry = await FaultRegistry.start()
    t.after(async () => await registry[Symbol.asyncDispose]())
    await registry.addLayout('team/app', layoutDirectory)
    registry.front.access.rules = {
      access: { kind: 'bearer', tokenLifeMs: 60_000 },
      users: [{ username: 'user', password: 'secret' }],
    }
    authority = registry.authority
  }
  const file = (password: string): string => {
    const path = join(temporaryDirectory(t), 'auth.json')
    const auth = Buffer.from(`user:${password}`).toString('base64')
    writeFileSync(path, JSON.stringify({ auths: { [authority]: { auth } } }))
    return path
  }
  const options = ['--insecure-registry', authority, '--log-level', 'debug']
  const a = await DaemonProcess.start(t, options)
  const b = await DaemonProcess.start(t, [...options, '--bootstrap', (await a.status()).addresses[0]!])
  while ((await b.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  const image = `${authority}/team/app:${kind === 'htpasswd' ? '1' : tag}`
  return { a, b, image, right: file('secret'), wrong: file('guess'), layout: `oci:${layoutDirectory}:${tag}` }
}

/** Whether a text is anywhere in what a daemon has logged or stored. */
async function shows({ log, directory }: DaemonProcess, text: string): Promise<boolean> {
  const grep = spawn('grep', ['-rlaF', text, join(directory, 'state')], { stdio: 'ignore' })
  const [status] = (await once(grep, 'exit')) as [number]
  return status === 0 || log.includes(text)
}

for (const kind of ['htpasswd', 'token server'] as const)
  test(`a private image is mounted and read with the credentials of the caller, and shown to nobody else, ${kind}`, async (t) => {
    const { a, b, image, right, wrong, layout } = await startRegion(t, kind)
    const direct = await DaemonProcess.start(t)
    const expected = await readFile((await direct.json<MountResult>('mount', layout, direct.target('m'))).rootfs)

    assert.match((await a.cli('mount', image, a.target('none'))).stderr, /docker login/)
    const refused = await a.cli('mount', image, a.target('wrong'), '--authfile', wrong)
    assert.equal(refused.status, 1)
    assert.match(refused.stderr, /--authfile/)
    const mounted = await a.json<MountResult>('mount', image, a.target('right'), '--authfile', right)
    assert.deepEqual(await readFile(mounted.rootfs), expected, 'what comes after the mount is read with them too')

    // Known and whole now: whoever may not read it does not get it where he must prove that.
    for (const [host, name] of [
      [a, 'a'],
      [b, 'b'],
    ] as const)
      for (const flags of [
        ['--require-access', '--pull', 'missing'],
        ['--pull', 'always'],
      ]) {
        const target = host.target(`${name}${flags.length}`)
        assert.equal((await host.cli('mount', image, target, '--authfile', wrong, ...flags)).status, 1)
        if (flags.includes('--require-access'))
          assert.equal((await host.cli('mount', image, target, ...flags)).status, 1)
        const proven = await host.json<MountResult>('mount', image, target, '--authfile', right, ...flags)
        assert.equal(proven.manifestDigest, mounted.manifestDigest)
        assert.deepEqual(await readFile(proven.rootfs), expected)
      }

    for (const host of [a, b])
      for (const text of ['secret', basic, 'guess']) assert.ok(!(await shows(host, text)), text)
  })

test('the credentials of a mount outlive daemons and supervisors, as the mount does, and leave nothing on the disk', async (t) => {
  const { a: host, b, image, right } = await startRegion(t, 'token server')
  await b.stop()
  const { rootfs } = await host.json<MountResult>('mount', image, host.target('mnt'), '--authfile', right)
  const expected = await readFile(rootfs)
  const state = join(host.directory, 'state')
  const steps: [string, (pid: number) => Promise<unknown>][] = [
    ['crash', async (pid) => await Promise.resolve(process.kill(pid, 'SIGKILL'))],
    ['order', async () => await Promise.resolve(host.signal('SIGHUP'))],
    ['another supervisor', async () => await host.takeOver('--replace')],
    [
      'a supervisor that is killed',
      async () => {
        await host.endSupervisor('SIGKILL')
        await host.takeOver()
      },
    ],
  ]
  for (const [i, [what, end]] of steps.entries()) {
    const { daemonPid } = await host.status()
    await end(daemonPid)
    await host.replaced(daemonPid)
    assert.ok(loseChunks(state, expected, 0.5, i) > 0)
    dropPageCache()
    assert.ok((await readFile(rootfs)).equals(expected), what)
  }
  assert.doesNotMatch(host.log, /credentials of mounts/)
  for (const text of ['secret', basic]) assert.ok(!(await shows(host, text)), text)

  // They end with the mount.
  await host.cli('umount', join(host.directory, 'mnt'))
  const { daemonPid } = await host.status()
  const memory = readFileSync(`/proc/${daemonPid}/fd/7`, 'latin1')
  assert.ok(memory.startsWith('p2pfs c1') && !memory.includes('secret'))
})

test('callers who may read a private image share one copy of it on and between hosts; one who may not gets nothing', async (t) => {
  const { layoutDirectory, tag } = await oddImage()
  const registry = await FaultRegistry.start()
  t.after(async () => await registry[Symbol.asyncDispose]())
  await registry.addLayout('team/app', layoutDirectory)
  const names = ['one', 'two', 'three']
  registry.front.access.rules = {
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    users: names.map((username) => ({ username, password: 'secret' })),
  }
  const { authority } = registry
  // A host that verifies what a member told reads the layers again.
  const options = ['--insecure-registry', authority, '--verify-believed', 'off']
  const a = await DaemonProcess.start(t, options)
  const b = await DaemonProcess.start(t, [...options, '--bootstrap', (await a.status()).addresses[0]!])
  while ((await b.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  const file = (username: string, password: string): string => {
    const path = join(temporaryDirectory(t), 'auth.json')
    const auth = Buffer.from(`${username}:${password}`).toString('base64')
    writeFileSync(path, JSON.stringify({ auths: { [authority]: { auth } } }))
    return path
  }
  const image = `${authority}/team/app:${tag}`
  const manifest = JSON.parse(registry.manifest('team/app', tag)!) as { layers: { digest: string }[] }
  // Long enough that all are there while the first reads.
  const layers = new Set(manifest.layers.map(({ digest }) => digest))
  registry.faults.add({ path: new RegExp(`blobs/(${[...layers].join('|')})`), latencyMs: 2_000 })
  const refused = a.cli('mount', image, a.target('wrong'), '--authfile', file('one', 'guess'))
  const mounts = names.map(async (name, i) => {
    const host = i === 2 ? b : a
    return await host.json<MountResult>('mount', image, host.target(name), '--authfile', file(name, 'secret'))
  })
  const mounted = await Promise.all(mounts)
  assert.equal((await refused).status, 1)
  assert.equal(new Set(mounted.map(({ digest }) => digest)).size, 1)
  for (const layer of layers)
    assert.equal(
      registry.front.requests(new RegExp(`blobs/${layer}`), 'GET').filter(({ status }) => status === 200).length,
      1,
    )
})

test('a seed with credentials prepares both formats, and its name asks no registry on another host', async (t) => {
  const { a, b, image, right } = await startRegion(t, 'htpasswd')
  const { mountBy, format, others } = await a.json<SeedResult>('seed', image, '--as', 'drive,tree', '--authfile', right)
  assert.deepEqual([format, others?.map((other) => other.format)], ['ext4', ['erofs']])
  for (const as of ['drive', 'tree']) {
    const mounted = await b.json<MountResult>('mount', mountBy!, b.target(as), '--as', as)
    assert.equal(mounted.resolution, 'digest')
    assert.ok(['peer', 'local'].includes(mounted.origin), mounted.origin)
  }
})
