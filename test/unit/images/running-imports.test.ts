import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import type { FoundRootfs } from '../../../node/model/image.ts'
import { importOf, RunningImports, type TaskOptions, type WaitOptions } from '../../../node/images/running-imports.ts'

const manifestDigest = digestOf(Buffer.from('manifest'))
const [a, b] = ['a', 'b'].map((name) => digestOf(Buffer.from(name))) as [Digest, Digest]
const image = (key: string): { key: string; reference: string; manifestDigest: Digest } => ({
  key,
  reference: key,
  manifestDigest,
})
const known = { origin: 'built' } as FoundRootfs

/** A waiter that records what it is told. */
function waiter(forPeer: boolean): { options: WaitOptions; seen: number[]; layers: Digest[]; leave: () => void } {
  const abort = new AbortController()
  const seen: number[] = []
  const layers: Digest[] = []
  const options = {
    signal: abort.signal,
    onProgress: ({ doneBytes }: { doneBytes: number }) => void seen.push(doneBytes),
    ...(forPeer ? { onLayer: (diffId: Digest) => void layers.push(diffId) } : {}),
  }
  return { options, seen, layers, leave: () => abort.abort() }
}

test('an import runs once for all; all see its progress, and two peers are told of its layers', async () => {
  const imports = new RunningImports()
  const end = Promise.withResolvers<FoundRootfs>()
  let runs = 0
  let task: TaskOptions | undefined
  const run = async (options: TaskOptions): Promise<FoundRootfs> => {
    runs++
    task = options
    return await end.promise
  }
  const [here, first, second, third] = [waiter(false), waiter(true), waiter(true), waiter(true)]
  const results = [imports.run(image('k'), here.options, run), imports.run(image('k'), first.options, run)]
  task!.onLayer(a)
  results.push(imports.run(image('k'), second.options, run), imports.run(image('k'), third.options, run))
  task!.onProgress!({ doneBytes: 5, totalBytes: 9 })
  assert.deepEqual(imports.list(), [{ reference: 'k', forPeers: 3, doneBytes: 5, totalBytes: 9 }])
  assert.equal(imports.has(manifestDigest), true)
  for (const { seen } of [here, first, second, third]) assert.deepEqual(seen, [5])
  const left = assert.rejects(results[1]!, { name: 'AbortError' })
  first.leave()
  await left
  task!.onLayer(b)
  assert.deepEqual([first.layers, second.layers, third.layers], [[a], [a, b], [a, b]])
  end.resolve(known)
  assert.deepEqual(await Promise.all([results[0], results[2], results[3]]), [known, known, known])
  assert.equal(runs, 1)
  assert.deepEqual([imports.list(), imports.has(manifestDigest)], [[], false])
})

test('an import that nobody waits for any more is aborted, and the next one begins anew', async () => {
  const imports = new RunningImports()
  const [first, second] = [waiter(true), waiter(true)]
  let aborted = 0
  const run = async ({ signal }: TaskOptions): Promise<FoundRootfs> => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    aborted++
    throw signal.reason
  }
  const ends = [first, second].map(
    async ({ options }) => await assert.rejects(imports.run(image('k'), options, run), { name: 'AbortError' }),
  )
  first.leave()
  await ends[0]
  assert.equal(aborted, 0)
  second.leave()
  await ends[1]
  assert.equal(aborted, 1)
  assert.deepEqual(imports.list(), [])
  assert.equal(await imports.run(image('k'), waiter(true).options, async () => await Promise.resolve(known)), known)
})

test('four imports run for peers alone; their waiters, and imports for this host, are not limited', async () => {
  const imports = new RunningImports()
  const end = Promise.withResolvers<FoundRootfs>()
  const run = async (): Promise<FoundRootfs> => await end.promise
  const running = ['1', '2', '3', '4'].map(async (key) => await imports.run(image(key), waiter(true).options, run))
  await assert.rejects(imports.run(image('5'), waiter(true).options, run), (error) => isP2pfsError(error, 'busy'))
  running.push(imports.run(image('4'), waiter(true).options, run), imports.run(image('5'), waiter(false).options, run))
  assert.equal(imports.list().length, 5)
  end.resolve(known)
  await Promise.all(running)
})

test('a peer has at most two imports begun for it, and waits for those of others as it likes', async () => {
  const imports = new RunningImports()
  const end = Promise.withResolvers<FoundRootfs>()
  const run = async (): Promise<FoundRootfs> => await end.promise
  const of = (peer: string): WaitOptions => ({ ...waiter(true).options, peer })
  const running = ['1', '2'].map(async (key) => await imports.run(image(key), of('a'), run))
  await assert.rejects(imports.run(image('3'), of('a'), run), (error) => isP2pfsError(error, 'busy'))
  running.push(imports.run(image('3'), of('b'), run), imports.run(image('3'), of('a'), run))
  end.resolve(known)
  await Promise.all(running)
  assert.equal(await imports.run(image('4'), of('a'), run), known)
})

test('an import for peers that fails is run again for this host, by itself; one that is malformed is not', async () => {
  for (const code of ['denied', 'unavailable', 'invalid'] as const) {
    const imports = new RunningImports()
    const end = Promise.withResolvers<FoundRootfs>()
    const forPeers = async (): Promise<FoundRootfs> => await end.promise
    const forPeer = assert.rejects(imports.run(image('k'), { ...waiter(true).options, peer: 'a' }, forPeers))
    let own = 0
    const here = imports.run(image('k'), waiter(false).options, async () => {
      own++
      return await Promise.resolve(known)
    })
    end.reject(new P2pfsError(code, 'the import for peers has failed'))
    if (code === 'invalid') await assert.rejects(here)
    else assert.equal(await here, known)
    await forPeer
    assert.equal(own, code === 'invalid' ? 0 : 1, code)
    assert.deepEqual(imports.list(), [])
  }
})

test('an import for peers that fails is not run again for a user who has given up', async () => {
  const imports = new RunningImports()
  const end = Promise.withResolvers<FoundRootfs>()
  const forPeer = assert.rejects(imports.run(image('k'), waiter(true).options, async () => await end.promise))
  const user = waiter(false)
  const never = async (): Promise<FoundRootfs> => await Promise.reject(new Error('run again'))
  const here = assert.rejects(imports.run(image('k'), user.options, never), { name: 'AbortError' })
  user.leave()
  end.reject(new P2pfsError('denied', 'the import for peers has failed'))
  await Promise.all([forPeer, here])
})

test('the import of one caller does not fail with the credentials of another', async () => {
  const imports = new RunningImports()
  const name = { reference: 'host.test/app:1', platform: 'linux/amd64', format: 'ext4' } as const
  const { signal } = new AbortController()
  const by = async (caller: string | undefined, task: () => Promise<FoundRootfs>): Promise<FoundRootfs> =>
    await imports.run(importOf(name, manifestDigest, caller), { signal }, task)
  const denied = async (): Promise<never> => await Promise.reject(new P2pfsError('denied', 'the password has expired'))
  const results = await Promise.allSettled([
    by('a', denied),
    by('b', async () => await Promise.resolve(known)),
    by(undefined, async () => await Promise.resolve(known)),
  ])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'fulfilled', 'fulfilled'],
  )
})

test('an import that only seeds want has nobody who waits for it until a mount, or a peer, joins', async () => {
  for (const joins of [waiter(false), waiter(true)]) {
    const imports = new RunningImports()
    const end = Promise.withResolvers<FoundRootfs>()
    let task: TaskOptions | undefined
    const run = async (options: TaskOptions): Promise<FoundRootfs> => {
      task = options
      return await end.promise
    }
    const seeds = [waiter(false), waiter(false)].map(
      async ({ options }) => await imports.run(image('k'), { ...options, urgency: new Urgency(false) }, run),
    )
    assert.equal(task!.urgency!.isUrgent, false)
    const joined = imports.run(image('k'), joins.options, run)
    assert.equal(task!.urgency!.isUrgent, true)
    end.resolve(known)
    await Promise.all([...seeds, joined])
  }
})

const named = { reference: 'host.test/app:1', platform: 'linux/amd64', format: 'ext4' } as const

/** An import that ends when the test says so, or when it is aborted. */
class HeldImport {
  readonly begun: string[] = []
  readonly end = Promise.withResolvers<FoundRootfs>()
  options: TaskOptions | undefined

  task =
    (by: string) =>
    async (options: TaskOptions): Promise<FoundRootfs> => {
      this.begun.push(by)
      this.options = options
      const aborted = Promise.withResolvers<never>()
      options.signal.addEventListener('abort', () => aborted.reject(options.signal.reason as Error))
      return await Promise.race([this.end.promise, aborted.promise])
    }
}

test('who has had the image described with his own credentials joins an import with those of another', async () => {
  const imports = new RunningImports()
  const held = new HeldImport()
  const seen = ['a', 'b', ''].map((caller) => ({ caller, ...waiter(false) }))
  const results = seen.map(
    async ({ caller, options }) =>
      await imports.run(importOf(named, manifestDigest, caller), options, held.task(caller)),
  )
  held.options!.onProgress!({ doneBytes: 5, totalBytes: 9 })
  for (const { seen: progress } of seen) assert.deepEqual(progress, [5])
  held.end.resolve(known)
  assert.deepEqual(await Promise.all(results), [known, known, known])
  assert.deepEqual(held.begun, ['a'])
})

test('credentials are used for nobody else once their caller has gone: who has joined goes on with his own', async () => {
  const imports = new RunningImports()
  const [first, second] = [new HeldImport(), new HeldImport()]
  const a = waiter(false)
  const left = assert.rejects(imports.run(importOf(named, manifestDigest, 'a'), a.options, first.task('a')), {
    name: 'AbortError',
  })
  const joined = imports.run(importOf(named, manifestDigest, 'b'), waiter(false).options, second.task('b'))
  const peer = imports.join(importOf(named, manifestDigest), { ...waiter(true).options, isBefore: true })
  a.leave()
  await left
  assert.equal(first.options!.signal.aborted, true)
  assert.equal(await peer, undefined, 'a peer keeps no import of a caller')
  while (second.begun.length === 0) await new Promise(setImmediate)
  const again = imports.run(importOf(named, manifestDigest, 'a'), waiter(false).options, first.task('a again'))
  second.end.resolve(known)
  assert.deepEqual([await joined, await again, first.begun, second.begun], [known, known, ['a'], ['b']])
  assert.deepEqual([imports.list(), imports.ended], [[], { imported: 1, failed: 0, aborted: 1 }])
})

test('an image that one caller finds malformed is so for all who have joined', async () => {
  const imports = new RunningImports()
  const held = new HeldImport()
  const results = ['a', 'b'].map(
    async (caller) =>
      await imports.run(importOf(named, manifestDigest, caller), waiter(false).options, held.task(caller)),
  )
  held.end.reject(new P2pfsError('invalid', 'no tar'))
  for (const result of results) await assert.rejects(result, { code: 'invalid' })
  assert.deepEqual(held.begun, ['a'])
})

test('a peer joins an import of a caller that reads, or of a host that comes first, and begins none', async () => {
  const imports = new RunningImports()
  const join = async (isBefore: boolean, of: string = named.reference): Promise<FoundRootfs | undefined> =>
    await imports.join(importOf({ ...named, reference: of }, manifestDigest), { ...waiter(true).options, isBefore })
  assert.equal(await join(true), undefined)
  const held = new HeldImport()
  const own = imports.run(importOf(named, manifestDigest, 'a'), waiter(false).options, held.task('a'))
  assert.equal(await join(false), undefined, 'this host waits for that one')
  assert.equal(await join(true, 'host.test/other:1'), undefined)
  const first = join(true)
  held.options!.onReading()
  const late = join(false)
  held.end.resolve(known)
  assert.deepEqual(await Promise.all([own, first, late]), [known, known, known])
  assert.equal(await join(true), undefined)
})

test('a peer that has joined an import that fails hears nothing of it', async () => {
  const imports = new RunningImports()
  const held = new HeldImport()
  const own = imports.run(importOf(named, manifestDigest, 'a'), waiter(false).options, held.task('a'))
  const joined = imports.join(importOf(named, manifestDigest), { ...waiter(true).options, isBefore: true })
  held.end.reject(new P2pfsError('denied', 'the password has expired'))
  await assert.rejects(own, { code: 'denied' })
  assert.equal(await joined, undefined)
})
