import assert from 'node:assert/strict'
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { writeTar } from '../../../support/tar-writer.ts'
import { createRandom } from '../../../support/random.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'
import { manyFiles } from './cases.ts'
import { compareImages, formats } from './compare-images.ts'
import { checkRootfsFile, indexLayer, mountRootfsFile, writeRootfsFile } from './rootfs-file.ts'

test('100,000 files in one directory', async () => {
  const tars = manyFiles().map((entries) => writeTar(entries))
  assert.deepEqual(await compareImages([{ name: 'many', layers: tars.map((tar) => ({ blob: tar, tar })) }]), new Map())
})

const GiB = 2 ** 30

for (const sparseFormat of ['S', '0.0', '0.1', '1.0'] as const) {
  test(`a sparse file of more than 4 GiB, format ${sparseFormat}, has its bytes where they belong`, async (context) => {
    const random = createRandom(5)
    const sizeBytes = 9 * GiB + 12_345
    const pieces = [0, 4 * GiB - 100, 8 * GiB + 5, sizeBytes - 3000].map((offset) => ({
      offset,
      bytes: random.bytes(3000),
    }))
    const tar = writeTar([{ path: 'sparse', type: 'file', sparse: { sizeBytes, pieces, format: sparseFormat } }])
    const chunks = new Map()
    const index = await indexLayer({ blob: tar, tar }, chunks, { worker: true })
    const directory = temporaryDirectory(context)
    for (const format of formats) {
      const path = join(directory, format)
      await writeRootfsFile(path, [index], chunks, format)
      await checkRootfsFile(path, format)
      await using mount = await mountRootfsFile(path, `${path}.mount`, format)
      void mount
      const file = join(`${path}.mount`, 'sparse')
      assert.equal((await stat(file)).size, sizeBytes)
      await using handle = await open(file)
      for (const { offset, bytes } of pieces) {
        const around = Buffer.alloc(bytes.length + 200, 0xff)
        const from = Math.max(0, offset - 100)
        const { bytesRead } = await handle.read(around, 0, around.length, from)
        const expected = Buffer.alloc(bytesRead)
        bytes.copy(expected, offset - from)
        assert.deepEqual(around.subarray(0, bytesRead), expected)
      }
      assert.deepEqual((await handle.read(Buffer.alloc(1000, 0xff), 0, 1000, 6 * GiB)).buffer, Buffer.alloc(1000))
    }
  })
}
