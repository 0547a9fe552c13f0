import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { SeedJobRequest } from '../../../node/control/api.ts'
import type { ResolvedRootfs } from '../../../node/model/image.ts'
import { ImageRequests } from '../../../node/operations/image-request.ts'
import { HeldCallers } from '../../../node/registry/held-callers.ts'
import { PlaceSeedOperation } from '../../../node/operations/seed-job.ts'
import type { SeedOrder } from '../../../node/seeds/seed-jobs.ts'
import { image, makeJob } from '../seeds/seed-fakes.ts'

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

  async place(request: Partial<SeedJobRequest>): Promise<void> {
    const operation = new PlaceSeedOperation({
      requests: new ImageRequests({ platform: 'linux/amd64' }),
      callers: new HeldCallers(),
      resolver: {
        resolveForSeed: async () => {
          this.resolved++
          return await Promise.resolve({ record: image, manifest: {} } as unknown as ResolvedRootfs)
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
          return await Promise.resolve(makeJob({ places: order.places }))
        },
        wait: async () => await Promise.reject(new Error('nobody waits')),
      },
    })
    const { signal } = new AbortController()
    await operation.run({ image: 'host/r:1', wait: false, ...request }, { signal, onProgress: () => undefined })
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
