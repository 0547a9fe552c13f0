import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { maxObjectRequestBytes, encodeObjectAnswer, parseObjectRequest } from '../../../protocol/messages/object.ts'
import { nameKey } from '../../../protocol/messages/location.ts'
import { silentLog } from '../../../node/base/log.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import type { Found } from '../../../node/peers/location/questions.ts'
import { LocatedMembers } from '../../../node/peers/object/located-members.ts'
import { RegionObjects } from '../../../node/peers/object/region-objects.ts'
import type { Member } from '../../../node/peers/peer.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { FakeRegion } from './fake-region.ts'

const { signal } = new AbortController()
const manifest = digestOf(Buffer.from('manifest'))
const name = { reference: 'r', platform: 'p', format: 'ext4' } as const

/** A large region: some members are connected, the others when they are reached. */
function lab({ connected, found }: { connected: number; found: (key: string) => Found }): {
  objects: RegionObjects
  /** Ids of the members that were asked, and of what. */
  asked: { id: string; kind: string }[]
  located: string[]
  /** Members that have what they are asked for. */
  importing: Set<string>
  unreachable: Set<string>
} {
  const clock = new FakeClock()
  const region = new FakeRegion({ clock })
  for (let i = 0; i < connected; i++) region.join(`connected-${i}`)
  const asked: { id: string; kind: string }[] = []
  const located: string[] = []
  const importing = new Set<string>()
  const unreachable = new Set<string>()
  region.serve = async (stream, id) => {
    for await (const bytes of readFrames(stream, maxObjectRequestBytes)) {
      asked.push({ id, kind: parseObjectRequest(bytes).kind })
      await writeFrame(stream, [encodeObjectAnswer(importing.has(id) ? new Uint8Array(0) : undefined)])
    }
  }
  const { membership, host } = region
  const members = (): Member[] => membership.members()
  const location = {
    isSmall: false,
    find: async (key: Digest) => {
      located.push(key)
      return await Promise.resolve(found(key))
    },
  }
  const objects = new RegionObjects({
    host,
    membership: { members, ban: () => undefined },
    located: new LocatedMembers({
      membership: {
        members,
        reach: async (id) => {
          if (unreachable.has(id)) throw new P2pfsError('unavailable', 'no route')
          return await Promise.resolve(region.join(id) as Member)
        },
      },
      location,
      clock,
    }),
    log: silentLog,
    clock,
  })
  return { objects, asked, located, importing, unreachable }
}

test('in a large region an import is looked for at whom its trackers name, and a few that are connected, not at all', async () => {
  const { objects, asked, located, importing } = lab({
    connected: 50,
    found: () => ({ members: ['far'], isAnswered: true }),
  })
  importing.add('far')
  assert.equal(await objects.findImport(manifest, { signal }), 'far')
  assert.deepEqual(located, [manifest])
  assert.ok(asked.length <= 5, `${asked.length} members are asked`)
})

test('records are looked for at the trackers of the name, and of that format', async () => {
  const { objects, located, asked } = lab({ connected: 0, found: () => ({ members: ['far'], isAnswered: true }) })
  await objects.findImages(name, { signal })
  await objects.findImages({ ...name, format: 'erofs' }, { signal })
  assert.deepEqual(located, [nameKey(name), nameKey({ ...name, format: 'erofs' })])
  assert.deepEqual(asked, [
    { id: 'far', kind: 'image' },
    { id: 'far', kind: 'image' },
  ])
})

test('a member that is named and cannot be reached is passed over; one that is asked for first is asked in any case', async () => {
  const { objects, asked, unreachable } = lab({
    connected: 0,
    found: () => ({ members: ['gone', 'far'], isAnswered: true }),
  })
  unreachable.add('gone')
  assert.equal(await objects.fetchRootfs(manifest, { signal, first: 'maker' }), undefined)
  assert.deepEqual(asked.map(({ id }) => id).toSorted(), ['far', 'maker'])
})

test('nobody has it where a tracker says so; where no tracker answers, nobody has answered', async () => {
  for (const connected of [0, 3]) {
    const { objects } = lab({ connected, found: () => ({ members: [], isAnswered: true }) })
    assert.equal(await objects.fetchBlobMap(manifest, { signal, mustAnswer: true }), undefined)
    const lost = lab({ connected, found: () => ({ members: [], isAnswered: false }) })
    await assert.rejects(lost.objects.fetchBlobMap(manifest, { signal, mustAnswer: true }), (error) =>
      isP2pfsError(error, 'unavailable'),
    )
  }
})
