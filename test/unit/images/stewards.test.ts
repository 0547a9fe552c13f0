import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { FoundRootfs } from '../../../node/model/image.ts'
import { Stewards, type StewardsParts } from '../../../node/images/stewards.ts'

const manifestDigest = digestOf(Buffer.from('manifest'))
const layer = { digest: digestOf(Buffer.from('blob')), diffId: digestOf(Buffer.from('tar')) }
const image = {
  reference: 'host/r:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest,
  layers: [layer],
} as const
const recordOf = (peer: string): ImageRecord => ({
  ...image,
  manifest: peer,
  rootfsDigest: manifestDigest,
  attestation: { key: 'maker', signature: new Uint8Array(64) },
  nameStatement: { key: 'stater', signature: new Uint8Array(64), statedAtMs: 1 },
})
const fetcher: StewardsParts['fetcher'] = {
  fetchChunk: async () => await Promise.reject(new Error('no chunk is fetched here')),
}
const { signal } = new AbortController()

type Behaviour = 'builds' | 'is wrong' | { refuses: ErrorCode } | { fails: ErrorCode }

/** Asks the members of a region, given in steward order with what each does; `me` is this host. */
async function ask(
  members: Record<string, Behaviour>,
  {
    running = (): string | undefined => undefined,
    onLayer = (): void => undefined,
    accepts = (): boolean => true,
    isForCaller = false,
    onlyImporting = false,
  }: {
    running?: (asked: string[]) => string | undefined
    onLayer?: (diffId: Digest) => void
    accepts?: (peer: string) => boolean
    isForCaller?: boolean
    /** Asks only the member that imports the image. */
    onlyImporting?: boolean
  } = {},
): Promise<{ from: string | undefined; asked: string[] }> {
  const asked: string[] = []
  const imports: StewardsParts['imports'] = {
    askImport: async (peer, _request, told) => {
      asked.push(peer)
      const behaviour = members[peer]!
      told.onLayer(digestOf(Buffer.from('of another image')))
      for (let again = 0; again < 2; again++) told.onLayer(layer.diffId)
      await new Promise(setImmediate)
      if (behaviour === 'builds' || behaviour === 'is wrong') return { record: recordOf(peer) }
      if ('refuses' in behaviour) return { refused: behaviour.refuses }
      throw new P2pfsError(behaviour.fails, 'lost')
    },
  }
  const stewards = new Stewards({
    peerId: 'me',
    membership: { whenRegionKnown: async () => await Promise.resolve(), byResponsibility: () => Object.keys(members) },
    imports,
    objects: { findImport: async () => await Promise.resolve(running(asked)) },
    trust: { accepts },
    indexes: {
      find: async (diffId) => {
        onLayer(diffId)
        return await Promise.resolve(undefined)
      },
    },
    ranges: { take: async () => await Promise.resolve() },
    fetcher,
    log: silentLog,
  })
  const accept = async (record: ImageRecord, peer: string): Promise<FoundRootfs | undefined> =>
    await Promise.resolve(members[peer] === 'is wrong' ? undefined : ({ record } as FoundRootfs))
  const known = onlyImporting
    ? await stewards.askImporting(image, { signal }, accept)
    : await stewards.ask(image, { signal, isForCaller }, accept)
  return { from: known?.record.manifest, asked }
}

test('the first steward is asked, and this host imports if it is the first itself', async () => {
  assert.deepEqual(await ask({ a: 'builds', b: 'builds', me: 'builds' }), { from: 'a', asked: ['a'] })
  assert.deepEqual(await ask({ me: 'builds', a: 'builds' }), { from: undefined, asked: [] })
})

test('a member that is importing the image is asked before the first steward, which joined later', async () => {
  assert.deepEqual(await ask({ me: 'builds', a: 'builds', b: 'builds' }, { running: () => 'b' }), {
    from: 'b',
    asked: ['b'],
  })
})

test('for a caller with credentials one member that may not read the image is enough; the others are asked as ever', async () => {
  const denied = { refuses: 'denied' } as const
  const isForCaller = true
  assert.deepEqual(await ask({ a: denied, b: 'builds', me: 'builds' }, { isForCaller }), {
    from: undefined,
    asked: ['a'],
  })
  assert.deepEqual(await ask({ a: denied, b: 'builds', me: 'builds' }), { from: 'b', asked: ['a', 'b'] })
  for (const a of [{ refuses: 'busy' }, { fails: 'timeout' }] as const)
    assert.deepEqual(await ask({ a, b: 'builds', me: 'builds' }, { isForCaller }), { from: 'b', asked: ['a', 'b'] })
})

test('a host that is about to import for a caller waits for a member that does, and for no other', async () => {
  const importing = async (
    running: string | undefined,
    a: Behaviour,
    accepts = (): boolean => true,
  ): Promise<unknown> =>
    await ask({ a, b: 'builds', me: 'builds' }, { onlyImporting: true, running: () => running, accepts })
  assert.deepEqual(await importing('a', 'builds'), { from: 'a', asked: ['a'] })
  for (const a of ['is wrong', { refuses: 'denied' }, { refuses: 'busy' }, { fails: 'timeout' }] as const)
    assert.deepEqual(await importing('a', a), { from: undefined, asked: ['a'] })
  for (const running of [undefined, 'me'])
    assert.deepEqual(await importing(running, 'builds'), { from: undefined, asked: [] })
  assert.deepEqual(await importing('a', 'builds', () => false), { from: undefined, asked: [] })
})

test('a member that this host does not trust is not asked', async () => {
  const accepts = (peer: string): boolean => peer === 'b'
  assert.deepEqual(await ask({ a: 'builds', b: 'builds', me: 'builds' }, { accepts }), { from: 'b', asked: ['b'] })
  assert.deepEqual(await ask({ a: 'builds', me: 'builds', b: 'builds' }, { running: () => 'a', accepts }), {
    from: undefined,
    asked: [],
  })
})

test('if a steward is lost, refuses, or has another image, the next one is asked, then this host imports', async () => {
  const bad: Behaviour[] = [
    { fails: 'timeout' },
    { fails: 'unavailable' },
    { fails: 'invalid' },
    { refuses: 'denied' },
    { refuses: 'closed' },
    { refuses: 'busy' },
    { refuses: 'unsupported' },
    'is wrong',
  ]
  for (const behaviour of bad) {
    assert.deepEqual(await ask({ a: behaviour, b: 'builds', me: 'builds' }), { from: 'b', asked: ['a', 'b'] })
    assert.deepEqual(await ask({ a: behaviour, me: 'builds', b: 'builds' }), { from: undefined, asked: ['a'] })
  }
})

test('if a steward is lost, a member that is importing by then comes before the next steward', async () => {
  const running = (asked: string[]): string | undefined => (asked.length === 1 ? 'c' : undefined)
  assert.deepEqual(await ask({ a: { fails: 'unavailable' }, b: 'builds', c: 'builds', me: 'builds' }, { running }), {
    from: 'c',
    asked: ['a', 'c'],
  })
  assert.deepEqual(await ask({ a: { fails: 'unavailable' }, me: 'builds', c: 'builds' }, { running }), {
    from: 'c',
    asked: ['a', 'c'],
  })
  assert.deepEqual(await ask({ a: { fails: 'timeout' }, b: 'builds', me: 'builds' }, { running: () => 'a' }), {
    from: 'b',
    asked: ['a', 'b'],
  })
})

test('an image that the steward finds malformed is checked by this host, and by nobody else', async () => {
  assert.deepEqual(await ask({ a: { refuses: 'invalid' }, b: 'builds', me: 'builds' }), {
    from: undefined,
    asked: ['a'],
  })
})

test('after five refusals this host imports the image itself', async () => {
  const members = Object.fromEntries(
    ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((name) => [name, { refuses: 'denied' } as const]),
  )
  assert.deepEqual((await ask({ ...members, me: 'builds' })).asked.length, 5)
})

test('layers of the image that the steward has read are copied, each once; other layers are not', async () => {
  const taken: Digest[] = []
  await ask({ a: { fails: 'unavailable' }, me: 'builds' }, { onLayer: (diffId) => taken.push(diffId) })
  assert.deepEqual(taken, [layer.diffId])
})

test('an asker that gives up asks nobody else', async () => {
  const abort = new AbortController()
  const stewards = new Stewards({
    peerId: 'me',
    membership: { whenRegionKnown: async () => await Promise.resolve(), byResponsibility: () => ['a', 'b', 'me'] },
    imports: {
      askImport: async (peer) => {
        assert.equal(peer, 'a')
        abort.abort()
        return await Promise.reject(new P2pfsError('unavailable', 'lost'))
      },
    },
    objects: { findImport: async () => await Promise.resolve(undefined) },
    trust: { accepts: () => true },
    indexes: { find: async () => await Promise.resolve(undefined) },
    ranges: { take: async () => await Promise.resolve() },
    fetcher,
    log: silentLog,
  })
  await assert.rejects(
    stewards.ask(image, { signal: abort.signal }, async () => await Promise.resolve(undefined)),
    { name: 'AbortError' },
  )
})

test('a registry that all stewards refuse costs round trips once in five minutes, and others are not affected', async () => {
  let asked = 0
  let questions = 0
  let nowMs = 0
  let refused: ErrorCode = 'denied'
  const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'me']
  const stewards = new Stewards(
    {
      peerId: 'me',
      membership: { whenRegionKnown: async () => await Promise.resolve(), byResponsibility: () => ids },
      imports: {
        askImport: async () => {
          asked++
          return await Promise.resolve({ refused })
        },
      },
      objects: {
        findImport: async () => {
          questions++
          return await Promise.resolve(undefined)
        },
      },
      trust: { accepts: () => true },
      indexes: { find: async () => await Promise.resolve(undefined) },
      ranges: { take: async () => await Promise.resolve() },
      fetcher,
      log: silentLog,
    },
    { now: () => nowMs },
  )
  const ask = async (reference: string): Promise<number> => {
    const before = asked
    const accept = async (): Promise<undefined> => await Promise.resolve(undefined)
    assert.equal(await stewards.ask({ ...image, reference }, { signal }, accept), undefined)
    return asked - before
  }
  assert.equal(await ask('refused.test/app:1'), 5)
  assert.equal(questions, 1, 'the region is asked once who imports the image')
  assert.equal(await ask('refused.test/other:1'), 0)
  refused = 'busy'
  assert.equal(await ask('busy.test/app:1'), 5)
  assert.equal(await ask('busy.test/app:1'), 5, 'stewards that are busy may not be soon')
  nowMs += 5 * 60_000
  assert.equal(await ask('refused.test/app:1'), 5)
})
