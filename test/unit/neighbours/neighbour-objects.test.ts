import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BootProfile } from '../../../protocol/boot-profile.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { NeighbourObjects } from '../../../node/neighbours/neighbour-objects.ts'

const [rootfs, other] = [digestOf(Buffer.from('rootfs')), digestOf(Buffer.from('other'))]
const table = new ChunkTable([4096], digestToBytes(digestOf(Buffer.alloc(4096))))
const manifest: RootfsManifest = { format: 'ext4', metadata: table, layers: [], config: '{}' }
const profileOf = (digest: Digest, seconds: number): BootProfile => ({
  rootfs: digest,
  sketch: [],
  seconds,
  chunks: [],
})
const { signal } = new AbortController()

interface Side {
  awake?: () => Promise<boolean>
  manifest?: () => Promise<RootfsManifest | undefined>
  profiles?: (BootProfile | undefined)[]
}

function setUp({ own = [], sides, waitMs = 0 }: { own?: (BootProfile | undefined)[]; sides: Side[]; waitMs?: number }) {
  const asked: number[] = []
  const neighbours = sides.map(
    (
      {
        awake = async () => await Promise.resolve(true),
        manifest = async () => await Promise.resolve(undefined),
        profiles = [],
      },
      i,
    ) => ({
      isAwake: awake,
      objects: {
        fetchRootfs: async () => {
          asked.push(i)
          return await manifest()
        },
        askProfiles: () => {
          asked.push(i)
          return profiles.map(async (profile) => await Promise.resolve(profile))
        },
      } as never,
    }),
  )
  const region = { askProfiles: () => own.map(async (profile) => await Promise.resolve(profile)) }
  return { asked, near: new NeighbourObjects({ neighbours, region, bandwidth: { waitMs: () => waitMs } }) }
}

const has = async (): Promise<RootfsManifest> => await Promise.resolve(manifest)

test('neighbours are asked for a rootfs manifest in their order, until one has it', async () => {
  const failing = async (): Promise<never> => await Promise.reject(new P2pfsError('unavailable', 'cut'))
  const { asked, near } = setUp({
    sides: [
      { awake: async () => await Promise.resolve(false), manifest: has },
      { manifest: failing },
      {},
      { manifest: has },
      {},
    ],
  })
  assert.equal(await near.fetchRootfs(rootfs, { signal }), manifest)
  assert.deepEqual(asked, [1, 2, 3])
})

test('where no neighbour has it, or their bandwidth is used up, the registry is left to say', async () => {
  const lacking = setUp({ sides: [{}, {}] })
  assert.equal(await lacking.near.fetchRootfs(rootfs, { signal }), undefined)
  const usedUp = setUp({ sides: [{ manifest: has }], waitMs: 1 })
  assert.equal(await usedUp.near.fetchRootfs(rootfs, { signal }), undefined)
  assert.deepEqual(usedUp.asked, [])
})

test('who gives up a question to neighbours gets his own reason', async () => {
  const ended = new AbortController()
  const manifest = async (): Promise<undefined> => {
    ended.abort(new P2pfsError('closed', 'as the test wants it'))
    return await Promise.reject(ended.signal.reason as Error)
  }
  const { near } = setUp({ sides: [{ manifest }] })
  await assert.rejects(near.fetchRootfs(rootfs, { signal: ended.signal }), { code: 'closed' })
})

test('a neighbour is asked for a boot profile where no member has one of this very rootfs, and others of it do not count', async () => {
  const subject = { rootfs, sketch: [] }
  const found = async (lab: ReturnType<typeof setUp>): Promise<(BootProfile | undefined)[]> =>
    (await Promise.all(lab.near.askProfiles(subject, [], { signal }))).filter((profile) => profile !== undefined)
  const own = setUp({ own: [profileOf(rootfs, 1)], sides: [{ profiles: [profileOf(rootfs, 2)] }] })
  assert.deepEqual(await found(own), [profileOf(rootfs, 1)])
  assert.deepEqual(own.asked, [])
  const kin = setUp({ own: [profileOf(other, 1)], sides: [{ profiles: [profileOf(other, 3), profileOf(rootfs, 2)] }] })
  assert.deepEqual(await found(kin), [profileOf(other, 1), profileOf(rootfs, 2)])
})

test('a question for a boot profile that is given up is no failure', async () => {
  const { near } = setUp({
    own: [undefined],
    sides: [{ awake: async () => await Promise.reject(new Error('given up')) }],
  })
  const asked = near.askProfiles({ rootfs, sketch: [] }, [], { signal: AbortSignal.abort() })
  assert.deepEqual(await Promise.all(asked), [undefined, undefined])
})
