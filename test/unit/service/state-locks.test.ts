import assert from 'node:assert/strict'
import { openSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { StateLocks } from '../../../node/service/state-locks.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

function locksOf(context: TestContext, stateDir: string): StateLocks {
  const locks = new StateLocks({ log: silentLog }, { stateDir })
  context.after(() => locks.release())
  return locks
}

const alone = { replaces: false }

test('one supervisor has a state directory; another is told who, and has it once that one is gone', async (t) => {
  const stateDir = join(temporaryDirectory(t), 'state')
  const first = locksOf(t, stateDir)
  assert.equal(await first.take({}, alone), undefined)
  await first.write({ pid: 4_711, control: '/run/x.sock', descriptors: { lock: first.fd! } })
  const second = locksOf(t, stateDir)
  await assert.rejects(second.take({}, alone), { code: 'conflict', message: /\(pid 4711\) uses .*--replace/ })
  first.release()
  await second.take({}, alone)
  assert.notEqual(second.fd, undefined)
})

test('a lock that was handed over takes the place of no supervisor that lives', async (t) => {
  const stateDir = join(temporaryDirectory(t), 'state')
  const first = locksOf(t, stateDir)
  await first.take({}, alone)
  await assert.rejects(locksOf(t, stateDir).take({ lock: first.fd! }, alone), { code: 'conflict' })
})

test('a supervisor that is starting has nothing to hand over yet: another try may help', async (t) => {
  const stateDir = join(temporaryDirectory(t), 'state')
  await locksOf(t, stateDir).take({}, alone)
  await assert.rejects(locksOf(t, stateDir).take({}, { replaces: true }), { code: 'unavailable' })
})

test('a lock that was handed over is of the directory by what it is, not by its name', async (t) => {
  const directory = temporaryDirectory(t)
  await locksOf(t, join(directory, 'a')).take({}, alone)
  const lock = openSync(join(directory, 'a', 'lock'), 'r')
  await assert.rejects(locksOf(t, join(directory, 'b')).take({ lock }, alone), { code: 'invalid' })
})
