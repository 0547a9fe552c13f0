import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { createLog, silentLog } from '../../../node/base/log.ts'
import { withCaller } from '../../../node/operations/image-request.ts'
import { CallerMemory, type HeldCaller } from '../../../node/registry/caller-memory.ts'
import { HeldCallers } from '../../../node/registry/held-callers.ts'
import { callerOf, parseReference } from '../../../node/registry/reference.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const reference = parseReference('host.test/team/app:1')
const by = (password: string): typeof reference => withCaller(reference, { username: 'user', password })

/** Stands for the memory: a daemon, and those that come after it. */
function memory(t: TestContext) {
  const file = join(temporaryDirectory(t), 'memory')
  const fd = openSync(file, 'w+')
  t.after(() => closeSync(fd))
  return { fd, text: (): string => readFileSync(file, 'latin1'), next: () => new CallerMemory({ log: silentLog }, fd) }
}

/** In whose name a host reads, by the passwords that it sends. */
async function passwords(callers: HeldCallers): Promise<(string | undefined)[]> {
  const readers = callers.readersOf(reference)
  return await Promise.all(readers.map(async (reader) => (await callerOf(reader)?.find('host.test'))?.password))
}

test('a daemon reads for mounts with the credentials that the one before had for them', async (t) => {
  const { next } = memory(t)
  const before = new HeldCallers({ memory: next() })
  before.hold('mount 1', by('first'))
  before.hold('mount 2', by('second'))
  before.hold('mount 3', withCaller(reference, { registryToken: 'bearer' }))
  const after = new HeldCallers({ memory: next() })
  assert.deepEqual(await passwords(after), ['', 'second', 'first', undefined])
  assert.deepEqual([after.has('mount 1'), after.has('mount 4')], [true, false])
  after.keepOnly(['mount 1'])
  assert.deepEqual(await passwords(after), ['first', undefined])
  assert.deepEqual(await passwords(new HeldCallers({ memory: next() })), ['first', undefined])
})

test('what has ended leaves nothing in the memory; what runs only, and who is nobody, is never in it', async (t) => {
  const { next, text } = memory(t)
  const callers = new HeldCallers({ memory: next() })
  await callers.during(by('of a request'), async () => {
    await Promise.resolve()
    callers.hold('nobody', withCaller(reference, {}))
    callers.hold('mount 1', by('of a mount'))
    callers.hold('mount 2', by('of another'))
    assert.doesNotMatch(text(), /of a request/)
    assert.match(text(), /of a mount.*of another/)
  })
  callers.release('mount 1')
  assert.doesNotMatch(text(), /of a mount/)
  callers.release('mount 2')
  for (const part of ['of a', 'user', 'host.test', 'mount']) assert.ok(!text().includes(part), part)
  assert.deepEqual(await passwords(new HeldCallers({ memory: next() })), [undefined])
})

test('a daemon that is killed at any instruction leaves what it had saved before, or what it saves', (t) => {
  const { fd, next } = memory(t)
  const held = (holder: string, length: number): HeldCaller => ({
    holder,
    repository: 'host.test/team/app',
    registry: 'host.test',
    credentials: { username: 'user', password: 'x'.repeat(length), identityToken: undefined },
  })
  const holders = (): string[] =>
    next()
      .load()
      .map(({ holder }) => holder)
  for (const state of [[held('longer', 500)], [held('shorter', 5), held('second', 50)], []]) {
    const outcomes = new Set<string>()
    for (let writes = 0; writes < 5; writes++)
      for (const isTorn of [false, true]) {
        next().save([held('before', 100)])
        let left = writes
        const dying = new CallerMemory(
          {
            log: silentLog,
            write: (...[file, bytes, offset, length, position]) => {
              if (left-- > 0) return writeSync(file, bytes, offset, length, position)
              // The header is one write of sixteen bytes.
              if (isTorn && length > 16) writeSync(file, bytes, offset, Math.floor(length / 2), position)
              throw new Error('killed')
            },
          },
          fd,
        )
        dying.load()
        dying.save(state)
        outcomes.add(holders().join())
      }
    const saved = state.map(({ holder }) => holder).join()
    assert.deepEqual([...outcomes].sort(), ['before', saved].sort())
  }
})

test('memory that is empty, or of another form, has no credentials, and is used all the same', (t) => {
  const { fd, next } = memory(t)
  assert.deepEqual(next().load(), [])
  for (const bytes of [
    Buffer.from('p2pfs c1'),
    Buffer.from('something else that is long enough'),
    Buffer.from('p2pfs c1\x09\0\0\0\x02\0\0\0'),
    Buffer.from('p2pfs c1\0\0\0\0\xff\xff\xff\xff', 'latin1'),
    Buffer.from('p2pfs c1\0\0\0\0\x02\0\0\0'),
  ]) {
    writeSync(fd, bytes, 0, bytes.length, 0)
    assert.deepEqual(next().load(), [])
  }
  const other: unknown = { holder: 'mount', more: 1 }
  next().save([other as HeldCaller])
  assert.deepEqual(next().load(), [], 'another version may have other fields')
})

test('what does not fit is left out, the oldest first; what cannot be kept is said without a secret', (t) => {
  const { next } = memory(t)
  const callers = Array.from({ length: 40 }, (_, i) => ({
    holder: `mount ${i}`,
    repository: 'r',
    registry: 'host.test',
    credentials: { username: 'user', password: 'x'.repeat(64 * 1024), identityToken: undefined },
  }))
  next().save(callers)
  const kept = next().load()
  assert.ok(kept.length > 8 && kept.length < 16, String(kept.length))
  assert.equal(kept.at(-1)!.holder, 'mount 39')
  const lines: string[] = []
  new CallerMemory({ log: createLog('debug', (line) => lines.push(line)) }, 1_000_000).save(callers)
  assert.match(lines.join(), /cannot be kept.*EBADF/)
  assert.doesNotMatch(lines.join(), /xxx|user/)
})
