import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { debianImages } from '../../../netlab/images/images.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { Registry } from '../../../netlab/registry/registry.ts'
import { loseChunks, readSlowly } from '../lost-chunks.ts'

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

test('outages of the registry are pauses for who reads: lost packets, a pulled cable, refused connections', async (t) => {
  const network = await Network.create()
  t.after(async () => await network[Symbol.asyncDispose]())
  const registry = await Registry.start(await network.addHost('registry', { rateBitsPerSecond: 200_000_000 }))
  const image = await registry.push((await debianImages()).gzip, 'lab/debian:1')
  const node = await NodeProcess.start(await network.addHost('node'), { insecureRegistries: [registry.authority] })
  t.after(async () => await node.stop())
  const { rootfs } = await node.mount(image, join(node.host.directory, 'mnt'))
  const whole = await readFile(rootfs)
  const { host } = registry

  const outages: [string, number, () => Promise<void>, () => Promise<void>][] = [
    ...[2, 6, 12].map((seconds): [string, number, () => Promise<void>, () => Promise<void>] => [
      'DROP',
      seconds,
      async () => await host.block('DROP'),
      async () => await host.unblock(),
    ]),
    ['cable', 2, async () => await host.cut(), async () => await host.restore()],
    ['REJECT', 3, async () => await host.block('REJECT'), async () => await host.unblock()],
  ]
  for (const [what, seconds, begin, end] of outages) {
    assert.ok(loseChunks(node.stateDirectory, whole, 0.5, seconds) > 100)
    let lastStepMs = 0
    let doneBytes = 0
    const afterwards = Promise.withResolvers<number>()
    let endedMs = Infinity
    const reading = readSlowly(rootfs, whole.length, {
      onStep: (bytes) => {
        lastStepMs = performance.now()
        doneBytes = bytes
        if (lastStepMs > endedMs) afterwards.resolve(lastStepMs - endedMs)
      },
    })
    // A read that fails is seen where it is awaited.
    reading.catch(() => undefined)
    while (doneBytes < 4 * 1024 * 1024) await sleep(5)
    await begin()
    const begunMs = performance.now()
    await sleep(seconds * 1000)
    const isWaiting = performance.now() - lastStepMs > 1000
    await end()
    endedMs = performance.now()
    const read = await reading
    afterwards.resolve(Number.NaN)
    assert.ok(isWaiting, `${what}: reads need the registry`)
    assert.equal(hash(read), hash(whole), what)
    t.diagnostic(
      `${what} for ${((endedMs - begunMs) / 1000).toFixed(1)} s: the first read goes on ${((await afterwards.promise) / 1000).toFixed(2)} s after its end`,
    )
  }
  assert.doesNotMatch(await node.log(), /read failed/)
})
