import assert from 'node:assert/strict'
import { test } from 'node:test'
import { layersOf, type ColdImage } from '../../../netlab/images/cold-images.ts'
import { ColdLab } from '../../../netlab/bench/cold-start.ts'
import { formatTimeline } from '../../../netlab/bench/cold-timeline.ts'
import { debianImages } from '../../../netlab/images/images.ts'

const rateBitsPerSecond = 100e6
/**
 * The share of the compressed image that may be fetched until the program is ready, the mount included. The figure is
 * 0.2.
 */
const maxShare = 0.3
/** The share of the compressed image that a mount may fetch. The figure is 0.003. */
const maxMountShare = 0.01
/**
 * The number of answers before the program starts: for the tag, the publication, its index and metadata. The figure is
 * 7.
 */
const maxMountRequests = 10

test('an empty host without peers runs a program with a part of the image, and no whole layer', async (context) => {
  const { packages } = await debianImages()
  const layers = await layersOf(packages)
  const compressedBytes = layers.reduce((sum, { size }) => sum + size, 0)
  const program = ['sh', '-c', 'git --version && exec perl -MList::Util -e "print qq(ready\\n)"']
  const image: ColdImage = { ...packages, program, env: ['PATH=/usr/bin:/bin'], readyLine: /^ready$/m, compressedBytes }
  await using lab = await ColdLab.create({ logRequests: true })
  const { timeline, readyBytes, mountBytes, mountRequests } = await lab.start(image, 'index', rateBitsPerSecond)
  for (const line of formatTimeline(timeline!, rateBitsPerSecond / 1e6).split('\n')) context.diagnostic(line)
  const ofLayers = timeline!.requests.filter(({ path }) =>
    layers.some(({ digest }) => path.endsWith(`/blobs/${digest}`)),
  )
  assert.ok(ofLayers.length > 0, 'nothing was read of the layers')
  assert.deepEqual(
    ofLayers.filter(({ status }) => status !== 206),
    [],
  )
  assert.ok(mountRequests <= maxMountRequests, `${mountRequests} requests at the mount`)
  assert.ok(mountBytes < maxMountShare * compressedBytes, `${mountBytes} bytes at the mount, of ${compressedBytes}`)
  assert.ok(
    readyBytes < maxShare * compressedBytes,
    `${readyBytes} bytes until the program was ready, of ${compressedBytes}`,
  )
})
