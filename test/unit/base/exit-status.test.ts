import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { test } from 'node:test'
import { systemError } from '../../../node/base/system-error.ts'
import { exitStatus, exitStatusOf } from '../../../node/base/exit-status.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

const errno = (code: string): Error => Object.assign(new Error(`${code}: it failed`), { code, syscall: 'open' })

test('what may pass by itself is tried again', () => {
  for (const error of [
    new P2pfsError('unavailable', 'not now'),
    new P2pfsError('invalid', 'cannot listen', { cause: errno('EADDRINUSE') }),
    new P2pfsError('invalid', 'cannot listen', { cause: new AggregateError([errno('EADDRNOTAVAIL')]) }),
    new Error('database failed', { cause: new Error('IO error: LOG: No space left on device') }),
    errno('ENOSPC'),
    systemError('cannot use the directory', errno('ENOSPC')),
  ])
    assert.equal(exitStatusOf(error), exitStatus.tryAgain, error.message)
})

test('what a person has to change is not tried again', () => {
  assert.throws(
    () => mkdirSync('/proc/nowhere'),
    (error) => exitStatusOf(error) === exitStatus.needsChange,
  )
  for (const error of [
    new P2pfsError('conflict', 'in use'),
    new P2pfsError('unsupported', 'no FUSE'),
    systemError('cannot use the directory', errno('EROFS')),
  ])
    assert.equal(exitStatusOf(error), exitStatus.needsChange, error.message)
})

test('a mistake of the program is a crash', () => {
  assert.equal(exitStatusOf(new TypeError('undefined is not a function')), exitStatus.crashes)
})
