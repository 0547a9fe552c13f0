import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { SeedJobRequest, SeedJobResult } from '../../../node/control/api.ts'
import type { ResolvedRootfs } from '../../../node/model/image.ts'
import { ImageRequests } from '../../../node/operations/image-request.ts'
import { HeldCallers } from '../../../node/registry/held-callers.ts'
import { PlaceSeedOperation } from '../../../node/operations/seed-job.ts'
import type { SeedOrder } from '../../../node/seeds/seed-jobs.ts'
import { image, makeJob, makeTable, makeTarget } from '../seeds/seed-fakes.ts'

const dayMs = 86_400_000
const hosts = [
  { id: 'id-a', name: 'a' },
  { id: 'id-b', name: 'b' },
  { id: 'id-c', name: 'twin' },
  { id: 'id-d', name: 'twin' },
]

/** The orders of users, and the work that was done for them. */
class Orders {
  readonly taken: SeedOrder[] = []
  resolved = 0

  isRaw = false
  /** The format that is not placed in time. */
  fails: string | undefined
  readonly progress: { doneBytes: number; totalBytes: number }[] = []

  async place(request: Partial<SeedJobRequest>): Promise<SeedJobResult> {
    const operation = new PlaceSeedOperation({
      requests: new ImageRequests({ platform: 'linux/amd64' }),
      callers: new HeldCallers(),
      resolver: {
        resolveForSeed: async (_reference, { format }) => {
          this.resolved++
          const rootfsDigest = digestOf(Buffer.from(this.isRaw ? 'raw' : format))
          return await Promise.resolve({
            record: { ...image, format: this.isRaw ? 'raw' : format, rootfsDigest },
            manifest: { metadata: makeTable(format, 1), layers: [] },
          } as unknown as ResolvedRootfs)
        },
      },
      membership: { whenRegionKnown: async () => await Promise.resolve() },
      hosts: { alive: () => new Map(hosts.map((host) => [host.id, host])) },
      jobs: {
        endOf: ({ ttlMs }) => {
          if (ttlMs > 90 * dayMs) throw new P2pfsError('invalid', 'too long')
          return ttlMs
        },
        accept: async (order) => {
          this.taken.push(order)
          return await Promise.resolve(makeJob({ ...order.image, places: order.places }))
        },
        wait: async (id, { onChange }) => {
          const order = this.taken.find((taken) => makeJob({ ...taken.image, places: taken.places }).id === id)!
          const job = makeJob({ ...order.image, places: order.places, targets: [makeTarget('id-a')] })
          onChange(job)
          return await Promise.resolve({ job, isPlaced: order.image.format !== this.fails })
        },
      },
    })
    const { signal } = new AbortController()
    return await operation.run(
      { image: 'host/r:1', wait: false, ...request },
      { signal, onProgress: (progress) => void this.progress.push(progress) },
    )
  }
}

test('an order that cannot be is refused before anything is done for it', async () => {
  const orders = new Orders()
  const cases: [Partial<SeedJobRequest>, ErrorCode][] = [
    [{ ttlMs: 91 * dayMs }, 'invalid'],
    [{ on: ['a', 'nobody'] }, 'missing'],
    [{ on: ['twin'] }, 'conflict'],
  ]
  for (const [request, code] of cases) await assert.rejects(orders.place(request), (error) => isP2pfsError(error, code))
  assert.deepEqual([orders.resolved, orders.taken], [0, []])
})

test('named hosts are one place each, however often and by whatever name they are given', async () => {
  const orders = new Orders()
  await orders.place({ on: ['b', 'id-a', 'a', 'id-b'] })
  await orders.place({ copies: 'all' })
  await orders.place({})
  assert.deepEqual(
    orders.taken.map(({ places }) => places),
    [{ on: ['id-a', 'id-b'] }, { all: true }, { copies: 1 }],
  )
})

test('an order for drives and trees is a job for each format, in one group, and is done when both are', async () => {
  const orders = new Orders()
  const { format, others, placed } = await orders.place({ as: ['drive', 'tree'], copies: 1, wait: true })
  assert.deepEqual([format, others?.map((other) => other.format), placed], ['ext4', ['erofs'], true])
  const [drive, tree] = orders.taken
  assert.equal(drive!.group, makeJob({ ...drive!.image, places: drive!.places }).id)
  assert.equal(tree!.group, drive!.group)
  const last = orders.progress.at(-1)!
  assert.deepEqual([last.doneBytes, last.totalBytes], [8192, 8192], 'of both')
  orders.fails = 'erofs'
  assert.equal((await orders.place({ as: ['drive', 'tree'], wait: true })).placed, false)
})

test('an order in one format, or for a raw image, is one job, which is in no group', async () => {
  const orders = new Orders()
  await orders.place({ as: ['tree', 'tree'] })
  await orders.place({ format: 'erofs' })
  orders.isRaw = true
  assert.equal((await orders.place({ as: ['drive', 'tree'] })).others, undefined)
  assert.deepEqual(
    orders.taken.map(({ image, group }) => [image.format, group]),
    [
      ['erofs', undefined],
      ['erofs', undefined],
      ['raw', undefined],
    ],
  )
})
