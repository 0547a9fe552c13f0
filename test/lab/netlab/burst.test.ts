import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { BurstLab } from '../../../netlab/bench/burst-start.ts'
import { copiesOf, formatCopies } from '../../../netlab/bench/request-copies.ts'
import { layersOf, type ColdImage } from '../../../netlab/images/cold-images.ts'
import { debianImages } from '../../../netlab/images/images.ts'

const rates = { registryBitsPerSecond: 25e6, hostBitsPerSecond: 1e9 }
/**
 * Bytes of layers that the registry sends, in those of one host. The figure is 1.03 on two cores; hosts that read each by themselves
 * fetch five.
 */
const maxCopies = 2

async function burst(context: TestContext, hosts: number, options: { fullMesh?: number } = {}): Promise<void> {
  const { packages } = await debianImages()
  const layers = await layersOf(packages)
  const compressedBytes = layers.reduce((sum, { size }) => sum + size, 0)
  const program = ['sh', '-c', 'git --version && exec perl -MList::Util -e "print qq(ready\\n)"']
  const image: ColdImage = { ...packages, program, env: ['PATH=/usr/bin:/bin'], readyLine: /^ready$/m, compressedBytes }
  await using lab = await BurstLab.create({ logRequests: true, ...options })
  const { requests } = await lab.start(image, 'profile', hosts, rates)
  for (const line of formatCopies(requests!).split('\n')) context.diagnostic(line)
  const ofLayers = copiesOf(requests!.filter(({ path }) => layers.some(({ digest }) => path.endsWith(digest))))
  assert.ok(ofLayers.distinctBytes > 0, 'nothing was read of the layers')
  assert.ok(
    ofLayers.bytes < maxCopies * ofLayers.distinctBytes,
    `${ofLayers.bytes} bytes, of which ${ofLayers.distinctBytes} are different ones`,
  )
}

test('six empty hosts that start an image at once have the registry read nearly once for all', async (context) => {
  await burst(context, 6)
})

test('the same of nine hosts that are connected to a part of their region only', async (context) => {
  await burst(context, 9, { fullMesh: 4 })
})
