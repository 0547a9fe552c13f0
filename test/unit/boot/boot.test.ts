import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Boot } from '../../../node/boot/boot.ts'
import type { BootingRootfs } from '../../../node/boot/booting-rootfs.ts'

test('members are asked for all segments of an image at once, and for its profile when that is over', async () => {
  const tables = ['metadata', 'first', 'second'].map(
    (name) => new ChunkTable([4096], digestToBytes(digestOf(Buffer.from(name)))),
  )
  const [metadata, ...layers] = tables
  const rootfs = {
    digest: digestOf(Buffer.from('rootfs')),
    manifest: { metadata, layers: layers.map((chunks) => ({ chunks })) },
    image: { sizeBytes: 3 * 4096, readOrder: new SharedArrayBuffer(4) },
    waitingChunks: 0,
  } as unknown as BootingRootfs
  const asked: string[] = []
  const answered = Promise.withResolvers<undefined>()
  const searched = Promise.withResolvers<undefined>()
  let isSearched = false
  await using stack = new AsyncDisposableStack()
  const boot = new Boot(
    {
      availability: {
        holders: () => [],
        whenAsked: async (id) => {
          asked.push(id)
          await answered.promise
        },
      },
      profiles: {
        find: async () => {
          isSearched = true
          searched.resolve(undefined)
          return await Promise.resolve(undefined)
        },
        keep: async () => await Promise.resolve(),
      },
      log: silentLog,
    },
    rootfs,
  )
  stack.defer(async () => await boot.end())
  assert.deepEqual(
    asked,
    tables.map(({ id }) => id),
  )
  assert.equal(isSearched, false)
  answered.resolve(undefined)
  await searched.promise
})
