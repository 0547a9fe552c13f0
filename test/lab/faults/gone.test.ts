import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { oddImage } from '../../../netlab/images/images.ts'
import type { MountResult } from '../../../node/control/api.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { dropPageCache, loseChunks } from '../lost-chunks.ts'
import { hash, startFaultRegistry, startFaultyLab, type FaultyLab } from './fault-daemon.ts'

const users = [{ username: 'lab', password: 'secret' }]

/** Checks that an image that is whole on the host works. */
async function works(lab: FaultyLab, name: string): Promise<void> {
  const { daemon, registry, image, rootfs, whole, manifest } = lab
  dropPageCache()
  assert.equal(hash(await readFile(rootfs)), hash(whole))
  const byTag = await daemon.json<MountResult>('mount', image, daemon.target(`${name}-tag`))
  assert.equal(hash(await readFile(byTag.rootfs)), hash(whole))
  const pinned = `${registry.authority}/lab/image@${digestOf(Buffer.from(manifest))}`
  const byDigest = await daemon.json<MountResult>('mount', pinned, daemon.target(`${name}-digest`))
  assert.equal(byDigest.digest, byTag.digest)
  const tree = await daemon.json<MountResult>('mount', image, daemon.target(`${name}-tree`), '--as', 'tree')
  assert.equal((await readFile(join(tree.rootfs, 'odd/one'))).toString(), '1')
  const status = await daemon.status()
  assert.ok(status.mounts.length >= 4)
  assert.equal((await daemon.cli('inspect', image)).status, 0)
}

test('with all local a registry that is gone for good is not missed: reads, mounts, restarts, status', async (t) => {
  const lab = await startFaultyLab(t, 'odd')
  const { daemon, registry, image } = lab
  await daemon.json('mount', image, daemon.target('known-tree'), '--as', 'tree')
  await registry.front.reject()
  await works(lab, 'gone')
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
  await works(lab, 'replaced')
  assert.equal((await daemon.cli('seed', image)).status, 0, 'the last known answer is whole already')
  assert.doesNotMatch(daemon.log, /read failed/)
})

test('a daemon starts, and mounts what it has, with the registry gone, the tag deleted, and credentials that are no longer good', async (t) => {
  const docker = temporaryDirectory(t)
  const tools = join(docker, 'bin')
  mkdirSync(tools)
  const setHelper = (script: string): void => {
    writeFileSync(join(tools, 'docker-credential-lab'), `#!/bin/sh\n${script}\n`)
    chmodSync(join(tools, 'docker-credential-lab'), 0o755)
  }
  process.env['PATH'] = `${tools}:${process.env['PATH']}`
  process.env['DOCKER_CONFIG'] = docker
  writeFileSync(join(docker, 'config.json'), JSON.stringify({ credsStore: 'lab' }))
  setHelper(`echo '{"Username":"lab","Secret":"secret"}'`)

  const lab = await startFaultyLab(t, 'odd', { access: { kind: 'bearer', tokenLifeMs: 60_000 }, users })
  const { daemon, registry, image } = lab
  await daemon.json('mount', image, daemon.target('known-tree'), '--as', 'tree')
  const restart = async (): Promise<void> => {
    await daemon.killAll()
    await daemon.startAgain()
    // Supervisor and daemon are gone: so is the mount.
    const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target(`mnt-${Math.random()}`))
    lab.rootfs = rootfs
  }

  setHelper('echo "the keychain is locked" >&2; exit 1')
  registry.front.access.revokeTokens()
  await restart()
  await works(lab, 'helper')

  setHelper(`echo '{"Username":"lab","Secret":"expired"}'`)
  await restart()
  await works(lab, 'expired')

  setHelper(`echo '{"Username":"lab","Secret":"secret"}'`)
  registry.deleteTag('lab/image', 'odd')
  await restart()
  await works(lab, 'tag')

  await registry.front.reject()
  await restart()
  await works(lab, 'registry')
})

test('a token that has expired is renewed, long after the mount, too; what is local needs none', async (t) => {
  const lab = await startFaultyLab(t, 'odd', {
    access: { kind: 'bearer', tokenLifeMs: 2_000, expiresInSeconds: 3_600 },
  })
  const { registry, rootfs, whole, lose } = lab
  const { tokenScopes } = registry.front.access
  registry.front.access.revokeTokens()
  const before = tokenScopes.length
  dropPageCache()
  assert.equal(hash(await readFile(rootfs)), hash(whole))
  assert.equal(tokenScopes.length, before, 'cached: nobody is asked')
  for (let round = 0; round < 3; round++) {
    assert.ok(lose(0.5) > 2)
    registry.front.access.revokeTokens()
    const asked = tokenScopes.length
    assert.equal(hash(await readFile(rootfs)), hash(whole))
    assert.ok(tokenScopes.length > asked, 'half cached: a new token')
  }
})

test('a mirror serves while the registry refuses connections; the registry serves while the mirror does', async (t) => {
  const { registry, image } = await startFaultRegistry(t, 'odd')
  const mirror = await FaultRegistry.start()
  t.after(async () => await mirror[Symbol.asyncDispose]())
  await mirror.addLayout('lab/image', (await oddImage()).layoutDirectory)
  const options = [
    '--insecure-registry',
    registry.authority,
    '--registry-mirror',
    `${registry.authority}=http://${mirror.authority}`,
  ]
  const daemon = await DaemonProcess.start(t, options)
  const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target('mnt'))
  const lab = { whole: await readFile(rootfs), daemon }
  const lose = (): void => void loseChunks(join(daemon.directory, 'state'), lab.whole, 0.6)

  await registry.front.reject()
  lose()
  assert.equal(hash(await readFile(rootfs)), hash(lab.whole))
  await registry.front.accept()
  await mirror.front.reject()
  lose()
  assert.equal(hash(await readFile(rootfs)), hash(lab.whole))
  assert.ok(registry.front.requests(/blobs/).length > 0)

  await registry.front.reject()
  lose()
  const reading = readFile(rootfs)
  await new Promise((resolve) => setTimeout(resolve, 2_000))
  await registry.front.accept()
  assert.equal(hash(await reading), hash(lab.whole), 'neither serves for a while: it waits')
  assert.doesNotMatch(daemon.log, /read failed/)
})
