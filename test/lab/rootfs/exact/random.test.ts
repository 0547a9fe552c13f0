import assert from 'node:assert/strict'
import { test } from 'node:test'
import { writeTar } from '../../../support/tar-writer.ts'
import { compareImages, type TestImage } from './compare-images.ts'
import { randomLayers } from './random-layers.ts'

/** Number of images, and the seed of the first. `P2PFS_IMAGES=1 P2PFS_SEED=17` runs image 17 alone. */
const count = Number(process.env['P2PFS_IMAGES'] ?? 300)
const firstSeed = Number(process.env['P2PFS_SEED'] ?? 1)
/** Number of images that are compared with one reading of trees. */
const batch = 50

test(`the rootfs of ${count} random images is what umoci unpacks`, async () => {
  for (let seed = firstSeed; seed < firstSeed + count; seed += batch) {
    const images = Array.from({ length: Math.min(batch, firstSeed + count - seed) }, (_, i) => randomImage(seed + i))
    const failures = await compareImages(images)
    if (failures.size > 0) assert.fail([...failures].map(([name, message]) => `${name}:\n${message}`).join('\n'))
  }
})

function randomImage(seed: number): TestImage {
  const layers = randomLayers(seed).map((entries) => {
    const tar = writeTar(entries)
    return { blob: tar, tar }
  })
  return { name: `seed-${seed}`, layers }
}
