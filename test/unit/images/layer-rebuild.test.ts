import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { LayerRebuild } from '../../../node/images/layer-rebuild.ts'
import type { ResolvedImage } from '../../../node/registry/image-source.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { defaultLayerLimits } from '../../../node/rootfs/layer-limits.ts'
import { createRandom } from '../../support/random.ts'
import { writeTar } from '../../support/tar-writer.ts'

const { signal } = new AbortController()
const reference = parseReference('host.test/app:1')
const pieceBytes = 64 * 1024
const tar = writeTar([{ path: 'noise', type: 'file', content: createRandom(5).bytes(900_000) }])
const blob = gzipSync(tar)
const layer = {
  digest: digestOf(blob),
  diffId: digestOf(tar),
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  sizeBytes: blob.length,
}
const image: ResolvedImage = {
  reference: 'host.test/app:1',
  platform: 'linux/amd64',
  manifestDigest: digestOf(Buffer.from('manifest')),
  manifest: '{}',
  config: '{}',
  layers: [layer],
}

/** Reads the layer of the image, which the registry delivers as `bytes`. */
function rebuild(bytes: Uint8Array): { rebuild: LayerRebuild; sleptMs: number[] } {
  const sleptMs: number[] = []
  const parts = {
    registry: {
      openLayer: async function* () {
        for (let at = 0; at < bytes.length; at += pieceBytes) {
          await Promise.resolve()
          yield bytes.subarray(at, at + pieceBytes)
        }
      },
    },
    limits: defaultLayerLimits,
    sleep: async (ms: number) => void (await Promise.resolve(sleptMs.push(ms))),
  }
  return { rebuild: new LayerRebuild(parts), sleptMs }
}

test('a bounded rebuild sleeps as long as its rate says, and makes the same as one without bounds', async () => {
  const bounded = rebuild(blob)
  const slow = await bounded.rebuild.of(reference, image, 'ext4', { signal, bytesPerSecond: 1024 * 1024 })
  const total = bounded.sleptMs.reduce((sum, ms) => sum + ms, 0)
  const expectedMs = (blob.length / 1024 / 1024) * 1000
  assert.ok(Math.abs(total - expectedMs) <= (pieceBytes / 1024 / 1024) * 1000, `${total} ms for ${expectedMs}`)
  const unbounded = rebuild(blob)
  assert.deepEqual(await unbounded.rebuild.of(reference, image, 'ext4', { signal }), slow)
  assert.deepEqual(unbounded.sleptMs, [])
})

test('a registry that delivers other bytes than the layer makes nobody a liar: the rebuild fails', async () => {
  const other = writeTar([{ path: 'noise', type: 'file', content: createRandom(6).bytes(900_000) }])
  for (const bytes of [gzipSync(other), blob.subarray(0, blob.length / 2), tar, Buffer.alloc(0)])
    await assert.rejects(rebuild(bytes).rebuild.of(reference, image, 'ext4', { signal }), (error) =>
      isP2pfsError(error),
    )
})
