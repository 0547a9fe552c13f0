import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { setImmediate as soon } from 'node:timers/promises'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import type { RegistryWord } from '../../../protocol/messages/registry-word.ts'
import { AnswerTimes } from '../../../node/images/answer-times.ts'
import { PatientLookup } from '../../../node/images/patient-lookup.ts'
import type { LookupOptions } from '../../../node/images/registry-lookup.ts'
import type { ResolvedImage } from '../../../node/registry/image-source.ts'
import { parseReference } from '../../../node/registry/reference.ts'

const reference = parseReference('host.test/app:1')
const record = { reference: 'host.test/app:1', platform: 'linux/amd64', format: 'ext4' } as ImageRecord
const moved = { reference: 'host.test/app:1' } as ResolvedImage
const registry = 'host.test'

/** One registry, whose answers come when the test says so. */
class Lab {
  readonly times = new AnswerTimes()
  readonly silent: string[] = []
  readonly disbelieved: string[] = []
  /** The words that members say at once. */
  words: RegistryWord[] = []
  nowMs = 0
  asked: (PromiseWithResolvers<ResolvedImage | undefined> & { options: LookupOptions })[] = []
  readonly late: Promise<ResolvedImage | undefined>[] = []
  readonly #t: TestContext
  readonly #lookup: PatientLookup

  constructor(t: TestContext) {
    this.#t = t
    t.mock.timers.enable({ apis: ['setTimeout'] })
    this.#lookup = new PatientLookup(
      {
        lookup: {
          findMoved: async (_reference, _record, options) => {
            const asked = { ...Promise.withResolvers<ResolvedImage | undefined>(), options }
            this.asked.push(asked)
            return await asked.promise
          },
        },
        silent: { silent: (name) => void this.silent.push(name) },
        times: this.times,
        words: {
          ask: async (_registry, { onWord }) => {
            for (const word of this.words) onWord(word)
            return await Promise.resolve()
          },
          disbelieve: (name) => void this.disbelieved.push(name),
        },
      },
      { now: () => this.nowMs },
    )
  }

  /** Begins a mount. @returns what it gets: `waits`, until it has got something */
  mount(signal = new AbortController().signal): { outcome: string } {
    const state = { outcome: 'waits' }
    const onLate = (answer: Promise<ResolvedImage | undefined>): void => {
      answer.catch(() => undefined)
      this.late.push(answer)
    }
    this.#lookup.findMoved(reference, record, { signal, answerMs: 2_000, onLate }).then(
      (image) => (state.outcome = image === undefined ? 'same' : 'moved'),
      (error: unknown) => (state.outcome = (error as Error).message),
    )
    return state
  }

  /** Lets so much time pass (ms). */
  async pass(ms: number): Promise<void> {
    this.#t.mock.timers.tick(ms)
    for (let turn = 0; turn < 5; turn++) await soon()
  }

  /** The registry begins its last answer. */
  answer(): void {
    this.asked.at(-1)!.options.onAnswer?.()
  }
}

for (const [what, usualMs, words, waitMs] of [
  ['nobody has had an answer of it', undefined, [], 500],
  ['it answers within 20 ms as a rule', 20, [], 70],
  ['it answers within a millisecond as a rule', 1, [], 60],
  ['it answers within 400 ms as a rule', 400, [], 830],
  ['it is slower than the budget', 5_000, [], 2_000],
  ['members have had answers within 20 and 50 ms', undefined, [20, 50, 30], 130],
  ['it is slower for this host than for a member', 400, [20], 830],
  ['a member says that it is silent', 400, ['silent'], 30],
  ['members that have had no answer say nothing', undefined, [undefined], 500],
] as const)
  test(`a mount waits ${waitMs} ms for a registry where ${what}, and no longer`, async (t) => {
    const lab = new Lab(t)
    if (usualMs !== undefined) lab.times.note(registry, usualMs)
    lab.words = words.map((word) =>
      word === 'silent' ? { isSilent: true, usualMs: 1 } : { isSilent: false, usualMs: word },
    )
    const mount = lab.mount()
    await lab.pass(waitMs - 2)
    assert.equal(mount.outcome, 'waits')
    await lab.pass(2)
    assert.equal(mount.outcome, `host.test did not answer within ${waitMs / 1000} s`)
    assert.deepEqual(lab.silent, [registry])
    assert.equal(lab.asked[0]!.options.signal.aborted, false, 'the question goes on')
  })

test('an answer that begins in time is waited for to its end', async (t) => {
  const lab = new Lab(t)
  const mount = lab.mount()
  await lab.pass(499)
  lab.answer()
  await lab.pass(1_000)
  assert.equal(mount.outcome, 'waits')
  lab.asked[0]!.resolve(moved)
  await lab.pass(0)
  assert.deepEqual([mount.outcome, lab.silent, lab.late], ['moved', [], []])
})

test('an answer that has come while the host was busy counts, although the time is over', async (t) => {
  const lab = new Lab(t)
  const mount = lab.mount()
  const busy = lab.pass(600)
  // Node looks at the answer that the kernel has of the registry after the timers.
  lab.answer()
  lab.asked[0]!.resolve(undefined)
  await busy
  assert.equal(mount.outcome, 'same')
})

test('what comes late is for the next mount: a tag that has moved, or is refused, is waited for with the whole budget', async (t) => {
  for (const end of ['moved', 'denied', 'missing'] as const) {
    t.mock.timers.reset()
    const lab = new Lab(t)
    lab.mount()
    await lab.pass(500)
    if (end === 'moved') lab.asked[0]!.resolve(moved)
    else lab.asked[0]!.reject(new P2pfsError(end, 'refused'))
    const late = await lab.late[0]!.catch((error: unknown) => (error as P2pfsError).code)
    assert.equal(late, end === 'moved' ? moved : end)
    lab.words = [{ isSilent: true, usualMs: undefined }]
    const next = lab.mount()
    await lab.pass(1_999)
    assert.equal(next.outcome, 'waits')
    await lab.pass(1)
    assert.equal(next.outcome, 'host.test did not answer within 2 s')
  }
})

test('a late answer that changes nothing, or is none, costs the next mount no more than this one', async (t) => {
  for (const end of ['same', 'unavailable', 'timeout'] as const) {
    t.mock.timers.reset()
    const lab = new Lab(t)
    lab.mount()
    await lab.pass(500)
    if (end === 'same') lab.asked[0]!.resolve(undefined)
    else lab.asked[0]!.reject(new P2pfsError(end, 'nothing'))
    const next = lab.mount()
    await lab.pass(500)
    assert.equal(next.outcome, 'host.test did not answer within 0.5 s')
  }
})

test('members are not believed about a registry that has answered meanwhile', async (t) => {
  const lab = new Lab(t)
  lab.words = [{ isSilent: true, usualMs: undefined }]
  const mount = lab.mount()
  await lab.pass(0)
  lab.answer()
  lab.asked[0]!.resolve(undefined)
  await lab.pass(0)
  assert.deepEqual([mount.outcome, lab.disbelieved], ['same', [registry]])
})

test('a registry that refuses is an answer, and no silence', async (t) => {
  const lab = new Lab(t)
  const mount = lab.mount()
  lab.asked[0]!.reject(new P2pfsError('missing', 'no such tag'))
  await lab.pass(0)
  assert.deepEqual([mount.outcome, lab.silent, lab.late], ['no such tag', [], []])
})

test('a mount that is given up asks no further', async (t) => {
  const lab = new Lab(t)
  const given = new AbortController()
  const mount = lab.mount(given.signal)
  given.abort(new Error('given up'))
  await lab.pass(0)
  assert.equal(mount.outcome, 'given up')
  assert.equal(lab.asked[0]!.options.signal.aborted, true)
})

test('one odd answer of many does not make mounts wait for long', () => {
  const times = new AnswerTimes()
  for (let i = 0; i < 31; i++) times.note(registry, 20)
  times.note(registry, 1_900)
  assert.equal(times.usualMs(registry), 20)
  times.note(registry, 1_900)
  assert.equal(times.usualMs(registry), 1_900, 'two of them may be a rule')
  for (let i = 0; i < 31; i++) times.note(registry, 20)
  assert.equal(times.usualMs(registry), 20)
})
