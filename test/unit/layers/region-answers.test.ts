import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { RegionAnswers, regionSilenceMs } from '../../../node/layers/region-answers.ts'
import { RegionObjects } from '../../../node/peers/object/region-objects.ts'
import { PeerStanding } from '../../../node/peers/peer-standing.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

const digest = digestOf(Buffer.from('blob'))
const { signal } = new AbortController()

type Member = ReturnType<ConstructorParameters<typeof RegionObjects>[0]['membership']['members']>[number]

/** A region whose members cannot be reached. */
function region({ members, isAlone }: { members: number; isAlone: boolean }): {
  answers: RegionAnswers
  world: { members: number; isAlone: boolean; nowMs: number }
} {
  const world = { members, isAlone, nowMs: 0 }
  const objects = new RegionObjects({
    host: {
      dialProtocol: async () => {
        throw new P2pfsError('unavailable', 'connection refused')
      },
    },
    membership: {
      members: () =>
        Array.from(
          { length: world.members },
          (_, i) =>
            ({ id: `member ${i}`, standing: new PeerStanding({ now: () => world.nowMs }) }) as unknown as Member,
        ),
      ban: () => undefined,
    },
    log: silentLog,
  })
  const membership = { isAlone: () => world.isAlone }
  return { answers: new RegionAnswers({ region: objects, membership, log: silentLog, now: () => world.nowMs }), world }
}

test('a host that knows of no other has its answer: nobody has it', async () => {
  const { answers } = region({ members: 0, isAlone: false })
  assert.equal(await answers.blobMap(digest, signal), undefined)
  assert.equal(await answers.layerIndex(digest, signal), undefined)
})

for (const [name, silent] of [
  ['a member that cannot be reached', { members: 2, isAlone: false }],
  ['a region of which no member is connected', { members: 0, isAlone: true }],
] as const) {
  test(`${name} has not said no; it counts as a no after a while`, async () => {
    const { answers, world } = region(silent)
    for (; world.nowMs < regionSilenceMs; world.nowMs += 1_000) {
      await assert.rejects(answers.blobMap(digest, signal), { code: 'unavailable' })
      await assert.rejects(answers.layerIndex(digest, signal), { code: 'unavailable' })
    }
    assert.equal(await answers.blobMap(digest, signal), undefined)
    Object.assign(world, { members: 0, isAlone: false })
    assert.equal(await answers.blobMap(digest, signal), undefined)
    Object.assign(world, silent)
    await assert.rejects(answers.blobMap(digest, signal), { code: 'unavailable' }, 'an answer begins a new silence')
  })
}

test('a silence long ago does not count for a question of now', async () => {
  const { answers, world } = region({ members: 1, isAlone: false })
  await assert.rejects(answers.blobMap(digest, signal), { code: 'unavailable' })
  world.nowMs += 3_600_000
  await assert.rejects(answers.blobMap(digest, signal), { code: 'unavailable' })
})
