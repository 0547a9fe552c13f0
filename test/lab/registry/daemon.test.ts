import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { FaultProxy } from '../../../netlab/registry/fault-proxy.ts'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { oddImage } from '../../../netlab/images/images.ts'
import { run } from '../../../netlab/hosts/process.ts'
import type { MountResult } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { startDockerRegistry } from './docker-registry.ts'

const hash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

test('a daemon imports through a bad registry, and through a mirror of one that is down, what it imports through a good one', async (t) => {
  const { layoutDirectory, tag } = await oddImage()
  const proxy = await FaultProxy.start(await startDockerRegistry(t), { redirectBlobs: { lifeMs: 60_000 } })
  t.after(async () => await proxy[Symbol.asyncDispose]())
  const { authority } = proxy.front
  await run('skopeo', [
    '--insecure-policy',
    'copy',
    '--quiet',
    '--preserve-digests',
    '--dest-tls-verify=false',
    `oci:${layoutDirectory}:${tag}`,
    `docker://${authority}/lab/odd:1`,
  ])
  const mirror = await FaultRegistry.start()
  t.after(async () => await mirror[Symbol.asyncDispose]())
  await mirror.addLayout('lab/odd', layoutDirectory)
  const direct = await DaemonProcess.start(t)
  const good = await direct.json<MountResult>('mount', `oci:${layoutDirectory}:${tag}`, direct.target('good'))

  proxy.front.faults.add({ path: /signed/, resetAfterBytes: 300_000, times: 3 })
  proxy.front.faults.add({ path: /manifests/, status: 503, times: 2 })
  const daemon = await DaemonProcess.start(t, [
    '--insecure-registry',
    authority,
    '--insecure-registry',
    'down.test',
    '--registry-mirror',
    `down.test=http://${mirror.authority}`,
  ])
  const bad = await daemon.json<MountResult>('mount', `${authority}/lab/odd:1`, daemon.target('bad'))
  assert.equal(bad.digest, good.digest)
  assert.equal(hash(bad.rootfs), hash(good.rootfs))
  assert.ok(proxy.front.log.filter(({ server }) => server === 'storage').length > 3)
  const mirrored = await daemon.json<MountResult>('mount', `down.test/lab/odd:${tag}`, daemon.target('mirrored'))
  assert.equal(mirrored.digest, good.digest)
})

test('a daemon stops at once while its registry says nothing', async (t) => {
  const { layoutDirectory, tag } = await oddImage()
  const server = await FaultRegistry.start()
  t.after(async () => await server[Symbol.asyncDispose]())
  await server.addLayout('lab/odd', layoutDirectory)
  server.faults.add({ path: /blobs/, stallAfterBytes: 100 })
  const daemon = await DaemonProcess.start(t, ['--insecure-registry', server.authority])
  const seeding = daemon.cli('seed', `${server.authority}/lab/odd:${tag}`)
  while (server.front.requests(/blobs/).length === 0) await new Promise((resolve) => setTimeout(resolve, 20))
  const begun = performance.now()
  assert.equal(await daemon.stop(), 0)
  assert.ok(performance.now() - begun < 20_000)
  assert.notEqual((await seeding).status, 0)
})
