import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
// Never the synchronous forms on the mount: the registry answers from this very thread.
import { readFile } from 'node:fs/promises'
import { test, type TestContext } from 'node:test'
import { FaultProxy } from '../../../netlab/fault-proxy.ts'
import { debianImages } from '../../../netlab/images.ts'
import { run } from '../../../netlab/process.ts'
import type { RegistryFront } from '../../../netlab/registry-front.ts'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { startDockerRegistry } from '../registry/docker-registry.ts'

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

test('a cold host without peers mounts a published image from the registry alone, and reads no layer whole', async (t) => {
  const { gzip } = await debianImages()
  const proxy = await FaultProxy.start(await startDockerRegistry(t))
  t.after(async () => await proxy[Symbol.asyncDispose]())
  const { front } = proxy
  const image = `${front.authority}/lab/image:1`
  await run('skopeo', ['--insecure-policy', 'copy', '--quiet', '--preserve-digests', '--dest-tls-verify=false', `oci:${gzip.layoutDirectory}:${gzip.tag}`, `docker://${image}`])
  const maker = await DaemonProcess.start(t, ['--insecure-registry', front.authority])
  const seeded = await maker.json<SeedResult>('seed', image, '--publish')
  console.log(seeded)
  const { rootfs } = await maker.json<MountResult>('mount', image, maker.target('mnt'))
  const whole = await readFile(rootfs)
  const again = await maker.json<SeedResult>('seed', image, '--publish')
  console.log(again)
  const { peerId } = await maker.status()
  await maker.stop()
  const cold = await DaemonProcess.start(t, ['--insecure-registry', front.authority, '--trust-index-key', peerId])
  const before = front.log.length
  const t0 = performance.now()
  const mounted = await cold.json<MountResult>('mount', image, cold.target('mnt'))
  console.log(performance.now() - t0, mounted.origin, mounted.digest)
  console.log(front.log.slice(before))
  const b2 = front.log.length
  assert.equal(hash(await readFile(mounted.rootfs)), hash(whole))
  console.log(front.log.length - b2, front.log.slice(b2).reduce((s, e) => s + e.bodyBytesSent, 0))
  console.log(front.log.slice(b2, b2 + 10))
  console.log(cold.log)
})
