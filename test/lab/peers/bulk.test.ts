import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Network } from '../../../netlab/hosts/network.ts'
import { NodeProcess } from '../../../netlab/hosts/node-process.ts'
import { writeTar, type TarEntry } from '../../support/tar-writer.ts'
import { writeWeightsImage } from '../../../netlab/images/weights-image.ts'

const mebibytes = 64
const meet = { timeoutMs: 30_000 }
const bulkPort = 4101

interface Lab {
  holder: NodeProcess
  asker: NodeProcess
  /** SHA-256 of the file in the image. */
  sum: string
}

/** A host with an image of one file, and an empty one that has met it. */
async function startLab(t: TestContext, ways: { holder: string; asker: string }): Promise<Lab> {
  const network = await Network.create()
  t.after(async () => await network[Symbol.asyncDispose]())
  const holder = await NodeProcess.start(await network.addHost('holder'), { env: { P2PFS_BULK: ways.holder } })
  t.after(async () => await holder.stop())
  const image = await writeWeightsImage(network.directory, { mebibytes, seed: 3 })
  await holder.cli(['import', image, 'weights'])
  const tar = join(network.directory, 'weights-3.tar')
  const content = execFileSync('tar', ['-xOf', tar, 'model.safetensors'], { maxBuffer: 2 * mebibytes * 2 ** 20 })
  const asker = await NodeProcess.start(await network.addHost('asker'), {
    bootstrap: [holder],
    env: { P2PFS_BULK: ways.asker },
  })
  t.after(async () => await asker.stop())
  await asker.whenStatus('has met the holder', ({ peers }) => peers.length > 0, meet)
  return { holder, asker, sum: createHash('sha256').update(content).digest('hex') }
}

async function sumOf(path: string): Promise<string> {
  const sum = createHash('sha256')
  for await (const bytes of createReadStream(path)) sum.update(bytes as Buffer)
  return sum.digest('hex')
}

for (const way of ['on', 'plain']) {
  test(`--bulk ${way}: a seed from a peer comes over a connection beside libp2p`, async (t) => {
    const { holder, asker, sum } = await startLab(t, { holder: way, asker: way })
    await asker.seed('local:weights')
    const status = await asker.status()
    assert.deepEqual(status.bulk, { mode: way === 'on' ? 'tls' : 'plain', port: bulkPort })
    assert.equal(status.peers[0]!.bulk, 'open')
    assert.ok(status.fetched.peer.bytes >= mebibytes * 2 ** 20)
    const sockets = (await asker.host.run('ss', ['-tnH'])).stdout.toString()
    assert.match(sockets, new RegExp(`${holder.host.address}:${bulkPort}`))
    const directory = join(asker.host.directory, 'mnt')
    await mkdir(directory)
    await asker.cli(['mount', 'local:weights', directory, '--as', 'tree', '--json'])
    assert.equal(await sumOf(join(directory, 'model.safetensors')), sum)
    await asker.unmount(directory)
  })
}

test('a seed of an image of small files takes a fraction of its chunks on the wire', async (t) => {
  const network = await Network.create()
  t.after(async () => await network[Symbol.asyncDispose]())
  const holder = await NodeProcess.start(await network.addHost('holder'))
  t.after(async () => await holder.stop())
  const files = Array.from({ length: 10_000 }, (_, i): TarEntry => ({
    path: `component-${i}.js`,
    type: 'file',
    content: Buffer.from(`export const number = ${i}`.padEnd(160, ' ')),
  }))
  const tar = join(network.directory, 'small.tar')
  await writeFile(tar, writeTar(files))
  await holder.cli(['import', tar, 'small'])
  const asker = await NodeProcess.start(await network.addHost('asker'), { bootstrap: [holder] })
  t.after(async () => await asker.stop())
  await asker.whenStatus('has met the holder', ({ peers }) => peers.length > 0, meet)
  const before = await asker.host.traffic()
  await asker.seed('local:small')
  const { receivedBytes } = await asker.host.traffic()
  const { bytes } = (await asker.status()).fetched.peer
  assert.ok(bytes >= 10_000 * 4096)
  // Metadata, and what libp2p carries until the connection stands, come as they are.
  t.diagnostic(`${receivedBytes - before.receivedBytes} bytes for ${bytes}`)
  assert.ok(
    receivedBytes - before.receivedBytes < bytes / 3,
    `${receivedBytes - before.receivedBytes} of ${bytes} bytes`,
  )
})

test('a file that is read in a tree of a cold host is read ahead in bulk, and is right', async (t) => {
  const { asker, sum } = await startLab(t, { holder: 'on', asker: 'on' })
  const directory = join(asker.host.directory, 'mnt')
  await mkdir(directory)
  await asker.cli(['mount', 'local:weights', directory, '--as', 'tree', '--json'])
  assert.equal(await sumOf(join(directory, 'model.safetensors')), sum)
  assert.equal((await asker.status()).peers[0]!.bulk, 'open')
  await asker.unmount(directory)
})

test('where the bulk port is closed, a seed comes over libp2p, and status says so', async (t) => {
  const { holder, asker } = await startLab(t, { holder: 'on', asker: 'on' })
  const close = ['-w', '-I', 'INPUT', '-p', 'tcp', '--dport', String(bulkPort), '-j', 'DROP']
  await holder.host.run('iptables', close)
  const seeding = asker.seed('local:weights')
  await asker.whenStatus('the port is known as closed', ({ peers }) => peers[0]?.bulk === 'unreachable', meet)
  await seeding
  const { fetched } = await asker.status()
  assert.ok(fetched.peer.bytes >= mebibytes * 2 ** 20)
  assert.match(await asker.cli(['status']), /no bulk: its port is not reached/)
})

test('hosts of different modes exchange chunks over libp2p, and status says so', async (t) => {
  const { asker } = await startLab(t, { holder: 'plain', asker: 'on' })
  await asker.seed('local:weights')
  const status = await asker.status()
  assert.equal(status.peers[0]!.bulk, 'refused')
  assert.ok(status.fetched.peer.bytes >= mebibytes * 2 ** 20)
  assert.match(await asker.cli(['status']), /no bulk: it has --bulk off or another mode/)
})
