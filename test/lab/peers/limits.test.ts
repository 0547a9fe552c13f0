import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { writeWeightsImage } from '../../../netlab/images/weights-image.ts'
import type { Limits } from '../../../node/control/api.ts'

const mebibytes = 64
const limitedBytesPerSecond = 5e6
const limitedMs = 4_000

for (const limit of ['download', 'seed', 'upload'] as const) {
  test(`a seed keeps to the limit on ${limit}, which is changed while it runs`, async (t) => {
    const network = await Network.create()
    t.after(async () => await network[Symbol.asyncDispose]())
    const holder = await NodeProcess.start(await network.addHost('holder'))
    t.after(async () => await holder.stop())
    const image = await writeWeightsImage(network.directory, { mebibytes, seed: 4 })
    await holder.cli(['import', image, 'weights'])
    const asker = await NodeProcess.start(await network.addHost('asker'), { bootstrap: [holder] })
    t.after(async () => await asker.stop())
    await asker.whenStatus('has met the holder', ({ peers }) => peers.length > 0, { timeoutMs: 30_000 })
    const side = limit === 'upload' ? holder : asker
    await side.cli(['limits', `--${limit}`, '40Mbit'])
    const startedAt = performance.now()
    const seeding = asker.seed('local:weights')
    await new Promise((resolve) => setTimeout(resolve, limitedMs))
    const { fetched } = await asker.status()
    const limits = JSON.parse(await side.cli(['limits', '--json'])) as Limits
    const seconds = (performance.now() - startedAt) / 1000
    // What is under way at once passes before the limit is felt.
    const mostBytes = limitedBytesPerSecond * (seconds + 1.5) + 8 * 2 ** 20
    assert.ok(fetched.peer.bytes < mostBytes, `${fetched.peer.bytes} bytes in ${seconds} s`)
    assert.ok(limits.limits.find(({ name }) => name === limit)!.rate === '40Mbit')
    await side.cli(['limits', `--${limit}`, 'none'])
    await seeding
    assert.ok((await asker.status()).fetched.peer.bytes >= mebibytes * 2 ** 20)
  })
}
