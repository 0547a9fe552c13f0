import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { errorCodes, isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../../protocol/image-record.ts'
import { isDiskFull } from '../../../node/base/disk-full.ts'
import { createLog } from '../../../node/base/log.ts'
import type { ImportOptions } from '../../../node/images/importer.ts'
import { peerImportLimits } from '../../../node/images/peer-import-limits.ts'
import { PeerImports, type PeerImportsOptions, type PeerImportsParts } from '../../../node/images/peer-imports.ts'
import { importOf, RunningImports } from '../../../node/images/running-imports.ts'
import type { FoundRootfs } from '../../../node/model/image.ts'
import { formatReference } from '../../../node/registry/reference.ts'

const manifestDigest = digestOf(Buffer.from('manifest'))
const wanted = {
  reference: 'named.test/app:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest,
} as const satisfies ImageName & { manifestDigest: Digest }
const unnamed = { ...wanted, reference: 'unnamed.test/app:1' }
const record = { ...wanted, manifest: '{}' } as unknown as ImageRecord
const built = { record, origin: 'built' } as FoundRootfs
const reader: PeerImportsParts['reader'] = { readShared: async () => await Promise.reject(new Error('not called')) }
const gibibyte = 1024 ** 3

/** A host whose operator has named one registry. Each part may be made to fail. */
class Host {
  /** The steps that were done for the peer, in order. */
  readonly done: string[] = []
  stored: () => FoundRootfs | undefined = () => undefined
  resolve: () => { manifestDigest: Digest; sizeBytes: number } = () => ({ manifestDigest, sizeBytes: 1000 })
  build: (options: ImportOptions) => Promise<FoundRootfs> = async () => await Promise.resolve(built)
  freeBytes = 100 * gibibyte
  isNamed: (registry: string) => boolean = (registry) => registry === 'named.test'
  nowMs = 0
  log = ''
  readonly running = new RunningImports()
  /** The members as stewards of the image. */
  order = ['own', 'peer']
  readonly imports: PeerImports

  constructor(options: Partial<PeerImportsOptions> = {}, level: 'info' | 'debug' = 'info') {
    const parts: PeerImportsParts = {
      catalog: {
        manifestOfIndex: async () => await Promise.resolve(undefined),
        putManifestOfIndex: async () => await Promise.resolve(),
      },
      registry: {
        isNamed: async (reference) => {
          this.done.push('named?')
          return await Promise.resolve(reference.kind === 'registry' && this.isNamed(reference.registry))
        },
        topDigest: async () => await Promise.reject(new Error('not called')),
        resolve: async (reference, platform) => {
          this.done.push('registry')
          const { manifestDigest, sizeBytes } = await Promise.resolve().then(() => this.resolve())
          return {
            reference: formatReference(reference),
            platform,
            manifestDigest,
            topDigest: manifestDigest,
            manifest: '{}',
            config: '{}',
            layers: [{ digest: manifestDigest, diffId: manifestDigest, mediaType: '', sizeBytes }],
          }
        },
      },
      reader,
      resolver: {
        findOnHost: async () => {
          this.done.push('stored?')
          return await Promise.resolve().then(() => this.stored())
        },
        build: async (_reference, _image, _format, options) => {
          this.done.push('import')
          return await this.build(options)
        },
      },
      imports: this.running,
      membership: { byResponsibility: () => this.order },
      own: 'own',
      room: async () => await Promise.resolve({ freeBytes: this.freeBytes, sizeBytes: 1000 * gibibyte }),
      log: createLog(level, (line) => (this.log += line)),
    }
    this.imports = new PeerImports(parts, { policy: 'listed', now: () => this.nowMs, ...options })
  }

  async ask(
    request: ImageName & { manifestDigest: Digest } = wanted,
    peer = 'peer',
    abort = new AbortController(),
  ): Promise<ImageRecord> {
    return await this.imports.importFor(request, { peer, signal: abort.signal, onLayer: () => undefined })
  }

  /** The refusal as the peer may see it. */
  async refusal(
    request: ImageName & { manifestDigest: Digest } = wanted,
    peer = 'peer',
  ): Promise<{ code: string; message: string }> {
    try {
      await this.ask(request, peer)
    } catch (error) {
      assert.ok(isP2pfsError(error))
      assert.deepEqual(error.details, {})
      return { code: error.code, message: error.message }
    }
    throw new Error('not refused')
  }
}

function fail(code: ErrorCode, message = 'secret'): never {
  throw new P2pfsError(code, message)
}

for (const [policy, reference, isImported] of [
  ['none', wanted, false],
  ['none', unnamed, false],
  ['listed', wanted, true],
  ['listed', unnamed, false],
  ['all', wanted, true],
  ['all', unnamed, true],
] as const) {
  test(`with --import-for-peers ${policy} an image of ${reference.reference.split('.')[0]} is ${isImported ? '' : 'not '}imported for peers`, async () => {
    const host = new Host({ policy })
    if (isImported) assert.equal(await host.ask(reference), record)
    else assert.equal((await host.refusal(reference)).code, 'denied')
    assert.equal(host.done.includes('import'), isImported)
  })
}

test('an import for a peer reads layers for others, and looks for nothing that was published', async () => {
  const host = new Host()
  let used: ImportOptions | undefined
  host.build = async (options) => {
    used = options
    return await Promise.resolve(built)
  }
  await host.ask()
  assert.equal(used?.reader, reader)
  assert.equal(used.other, undefined)
  assert.deepEqual(host.done, ['named?', 'stored?', 'registry', 'import'])
})

test('what is here already is given to a peer without asking the registry, if its registry is allowed', async () => {
  const host = new Host()
  host.stored = () => built
  assert.equal(await host.ask(), record)
  assert.deepEqual(host.done, ['named?', 'stored?'])
  const other = digestOf(Buffer.from('another manifest'))
  assert.equal((await host.refusal({ ...wanted, manifestDigest: other })).code, 'denied')
})

test('whether a registry is allowed is decided before anything else is looked at, and in the same steps', async () => {
  for (const policy of ['none', 'listed'] as const) {
    const host = new Host({ policy })
    host.stored = () => ({ ...built, record: { ...record, ...unnamed } })
    for (const request of [unnamed, { ...unnamed, reference: 'unnamed.test/nothing:1' }]) {
      host.done.length = 0
      await host.refusal(request)
      assert.deepEqual(host.done, ['named?'])
    }
  }
})

/** A fault, how it is brought about, and the image that the peer asks for. */
type Refusal = [string, (host: Host) => unknown, ImageName]

test('a refusal tells nothing of images, registries, credentials or this host: all are the same', async () => {
  const refusals: Refusal[] = [
    ['a registry that is not allowed', () => undefined, unnamed],
    ['hosts that cannot be read', (host) => (host.isNamed = () => fail('invalid')), wanted],
    ['an image of no registry', () => undefined, { ...wanted, reference: 'local:app' }],
    ['an image of this host', () => undefined, { ...wanted, reference: 'oci:/etc:1' }],
    ['a name that is not canonical', () => undefined, { ...wanted, reference: 'app:1' }],
    ['a name that is none', () => undefined, { ...wanted, reference: '..' }],
    ['a platform that is none', () => undefined, { ...wanted, platform: 'x\u001b[2J' }],
    ['a platform without end', () => undefined, { ...wanted, platform: `linux/${'x'.repeat(100)}` }],
    ['a catalog that is damaged', (host) => (host.stored = () => fail('invalid')), wanted],
    [
      'another image',
      (host) => (host.resolve = () => ({ manifestDigest: digestOf(Buffer.from('2')), sizeBytes: 1 })),
      wanted,
    ],
    [
      'an image that is too large',
      (host) => (host.resolve = () => ({ manifestDigest, sizeBytes: peerImportLimits.imageBytes + 1 })),
      wanted,
    ],
    ['a disk without room', (host) => (host.freeBytes = 9 * gibibyte), wanted],
    ['a bug', (host) => (host.build = async () => await Promise.reject(new TypeError('bug'))), wanted],
    ...errorCodes.map((code): Refusal => [
      `${code} of the registry`,
      (host) => (host.resolve = () => fail(code)),
      wanted,
    ]),
    ...errorCodes
      .filter((code) => code !== 'invalid')
      .map((code): Refusal => [`${code} of a layer`, (host) => (host.build = async () => fail(code)), wanted]),
  ]
  const seen = new Map<string, string>()
  for (const [what, set, request] of refusals) {
    const host = new Host()
    set(host)
    seen.set(what, JSON.stringify(await host.refusal({ manifestDigest, ...request })))
  }
  assert.equal(new Set(seen.values()).size, 1, JSON.stringify([...seen], undefined, 1))
  assert.match([...seen.values()][0]!, /"code":"denied"/)
})

test('a peer is told that an image is malformed if it is the image that the peer named, without a reason', async () => {
  const host = new Host()
  host.build = async () => fail('invalid')
  const { code, message } = await host.refusal()
  assert.equal(code, 'invalid')
  assert.doesNotMatch(message, /secret/)
})

test('no text of a registry or a peer is in the log of a host that serves peers', async () => {
  const host = new Host()
  host.resolve = () => fail('unavailable', 'text of the registry')
  await host.refusal()
  host.build = async () => fail('invalid', 'text of the layer')
  host.resolve = () => ({ manifestDigest, sizeBytes: 1 })
  await host.refusal()
  await host.refusal({
    ...wanted,
    reference: 'named.test/text/of/the/peer:1',
    manifestDigest: digestOf(Buffer.from('2')),
  })
  await host.refusal({ ...wanted, platform: 'text\nof/the/peer/' })
  assert.doesNotMatch(host.log, /text/)
})

test('the log names a refused registry once, with the option that would allow it, and not any number of them', async () => {
  const host = new Host({ limits: { ...peerImportLimits, requestsPerMinutePerPeer: 1_000 } })
  for (let again = 0; again < 3; again++) await host.refusal(unnamed)
  const lines = host.log.trim().split('\n')
  assert.equal(lines.length, 1)
  assert.match(lines[0]!, /--peer-registry.*"registry":"unnamed.test"/)
  for (let i = 0; i < 500; i++) await host.refusal({ ...wanted, reference: `r${i}.test/app:1` })
  assert.equal(host.log.trim().split('\n').length, 64)
  const silent = new Host({ policy: 'none' })
  await silent.refusal(unnamed)
  assert.equal(silent.log, '')
})

/** An import that ends when it is told to. */
async function untilAborted({ signal }: ImportOptions): Promise<never> {
  return await new Promise((_, reject) =>
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }),
  )
}

test('an import for peers ends when it has taken its time, and gives no other a longer one', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  const host = new Host()
  let why: unknown
  const begun = Promise.withResolvers<undefined>()
  host.build = async (options) => {
    begun.resolve(undefined)
    return await untilAborted(options).catch((error: unknown) => {
      why = error
      throw error
    })
  }
  const first = host.refusal()
  await begun.promise
  t.mock.timers.tick(peerImportLimits.importMs - 1)
  const second = host.refusal(wanted, 'another peer')
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(why, undefined)
  t.mock.timers.tick(1)
  assert.deepEqual(await Promise.all([first, second]).then((all) => all.map(({ code }) => code)), ['denied', 'denied'])
  assert.ok(isP2pfsError(why, 'denied'))
})

test('an import for peers neither begins nor goes on where too little room is left on the disk, and leaves nothing', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  const host = new Host()
  host.freeBytes = 10 * gibibyte - 1
  await host.refusal()
  assert.ok(!host.done.includes('registry'))
  host.freeBytes = 10 * gibibyte
  let why: unknown
  const begun = Promise.withResolvers<undefined>()
  host.build = async (options) => {
    begun.resolve(undefined)
    return await untilAborted(options).catch((error: unknown) => {
      why = error
      throw error
    })
  }
  const refused = host.refusal()
  await begun.promise
  t.mock.timers.tick(peerImportLimits.roomIntervalMs)
  assert.equal(why, undefined)
  host.freeBytes = 10 * gibibyte - 1
  t.mock.timers.tick(peerImportLimits.roomIntervalMs)
  assert.equal((await refused).code, 'denied')
  assert.ok(isDiskFull(why), 'an import that fills the disk is undone')
})

test('an import for a peer ends when the peer goes away', async () => {
  const host = new Host()
  const begun = Promise.withResolvers<undefined>()
  const ended = Promise.withResolvers<undefined>()
  host.build = async (options) => {
    begun.resolve(undefined)
    return await untilAborted(options).finally(() => ended.resolve(undefined))
  }
  const abort = new AbortController()
  const asked = assert.rejects(host.ask(wanted, 'peer', abort), { name: 'AbortError' })
  await begun.promise
  abort.abort()
  await Promise.all([asked, ended.promise])
})

test('a peer that asks too often is told to come later; others are not, and nor is it after a while', async () => {
  const host = new Host()
  host.stored = () => built
  const most = peerImportLimits.requestsPerMinutePerPeer
  for (let i = 0; i < most; i++) await host.ask()
  assert.equal((await host.refusal()).code, 'busy')
  assert.equal((await host.refusal(unnamed)).code, 'busy')
  assert.equal(await host.ask(wanted, 'another peer'), record)
  host.nowMs += 60_000 / most
  assert.equal(await host.ask(), record)
  assert.equal((await host.refusal()).code, 'busy')
})

test('requests that wait are bounded for each peer and in all, and a place is free when one has its answer', async () => {
  const host = new Host({ limits: { ...peerImportLimits, waitingPerPeer: 2, waiting: 3 } })
  const end = Promise.withResolvers<FoundRootfs>()
  host.build = async () => await end.promise
  const waiting = [host.ask(wanted, 'a'), host.ask(wanted, 'a')]
  assert.equal((await host.refusal(wanted, 'a')).code, 'busy')
  waiting.push(host.ask(wanted, 'b'))
  assert.equal((await host.refusal(wanted, 'c')).code, 'busy')
  end.resolve(built)
  await Promise.all(waiting)
  assert.equal(await host.ask(wanted, 'a'), record)
  assert.equal(await host.ask(wanted, 'c'), record)
})

test('for a seed of a member the registry is read where the operator has named it, and nowhere else', async () => {
  for (const [policy, reference, isRead] of [
    ['none', wanted, false],
    ['listed', wanted, true],
    ['listed', unnamed, false],
    ['all', wanted, true],
    ['all', unnamed, false],
  ] as const)
    assert.equal(await new Host({ policy }).imports.readsFor(reference.reference), isRead)
  assert.equal(await new Host({ policy: 'all' }).imports.readsFor('local:app'), false)
})

test('a peer waits for an import that runs here for a caller, from whatever registry, and begins none', async () => {
  for (const [policy, order, isJoined] of [
    ['listed', ['own', 'peer'], true],
    ['all', ['own', 'peer'], true],
    ['none', ['own', 'peer'], false],
    ['listed', ['peer', 'own'], false],
  ] as const) {
    const host = new Host({ policy })
    host.order = [...order]
    const end = Promise.withResolvers<FoundRootfs>()
    const { manifestDigest: digest, ...name } = unnamed
    const { signal } = new AbortController()
    const own = host.running.run(importOf(name, digest, 'caller'), { signal }, async () => await end.promise)
    const asked = isJoined ? host.ask(unnamed) : host.refusal(unnamed)
    await new Promise(setImmediate)
    if (isJoined) assert.deepEqual(host.done, [], 'nothing else is looked at')
    end.resolve(built)
    await own
    if (isJoined) assert.equal(await asked, record)
    else assert.equal(((await asked) as { code: string }).code, 'denied')
    assert.equal(host.done.includes('import'), false)
  }
})

test('who names another image than the one that a caller imports is refused as ever, and learns nothing', async () => {
  const host = new Host()
  const { manifestDigest: digest, ...name } = unnamed
  const abort = new AbortController()
  const own = host.running.run(
    importOf(name, digest, 'caller'),
    { signal: abort.signal },
    async ({ signal }) =>
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
  )
  const guess = { ...unnamed, manifestDigest: digestOf(Buffer.from('a guess')) }
  const refused = await host.refusal(guess)
  assert.deepEqual(refused, await new Host().refusal(guess))
  abort.abort()
  await assert.rejects(own, { name: 'AbortError' })
})
