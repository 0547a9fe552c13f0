import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { changeableAncestor, makeFilePrivate, makePrivateDirectory } from '../../../node/base/private-directory.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const modeOf = (path: string): number => statSync(path).mode & 0o7777

test('a directory is made for its user alone, whatever the umask', async (t) => {
  const umask = process.umask()
  t.after(() => process.umask(umask))
  for (const [i, mask] of [0, 0o022, 0o277].entries()) {
    process.umask(mask)
    const path = join(temporaryDirectory(t), String(i))
    assert.deepEqual(await makePrivateDirectory(path), { formerMode: undefined })
    process.umask(umask)
    assert.equal(modeOf(path), 0o700)
  }
})

test('a directory that others could enter is closed, and said to have been open; also behind a link', async (t) => {
  const base = temporaryDirectory(t)
  for (const mode of [0o755, 0o710, 0o2775, 0o1777]) {
    const path = join(base, mode.toString(8))
    mkdirSync(path)
    chmodSync(path, mode)
    assert.deepEqual(await makePrivateDirectory(path), { formerMode: mode })
    assert.equal(modeOf(path), 0o700)
  }
  mkdirSync(join(base, 'real'), { mode: 0o755 })
  symlinkSync('real', join(base, 'link'))
  assert.deepEqual(await makePrivateDirectory(join(base, 'link')), { formerMode: 0o755 })
  assert.equal(modeOf(join(base, 'real')), 0o700)
})

test('a directory that must stay open is left as it is', async (t) => {
  const path = join(temporaryDirectory(t), 'shared')
  mkdirSync(path)
  chmodSync(path, 0o755)
  const refuse = async (): Promise<void> => await Promise.reject(new Error('shared'))
  await assert.rejects(makePrivateDirectory(path, { check: refuse }), /shared/)
  assert.equal(modeOf(path), 0o755)
  chmodSync(path, 0o700)
  await makePrivateDirectory(path, { check: refuse })
})

test('what is another user’s is refused, and stays as it is', async (t) => {
  const own = temporaryDirectory(t)
  const isRoot = process.getuid!() === 0
  if (isRoot) chownSync(own, 65_534, 65_534)
  // An ordinary user has none of another to give away.
  const path = isRoot ? own : '/'
  const before = modeOf(path)
  await assert.rejects(
    makePrivateDirectory(path),
    (error) => isP2pfsError(error, 'invalid') && /belongs to user \d+/.test(error.message),
  )
  assert.equal(modeOf(path), before)
})

test('a file that others could read is closed; one that is not there stays so', async (t) => {
  const file = join(temporaryDirectory(t), 'key')
  assert.deepEqual(await makeFilePrivate(file), { formerMode: undefined })
  writeFileSync(file, 'secret')
  chmodSync(file, 0o644)
  assert.deepEqual(await makeFilePrivate(file), { formerMode: 0o644 })
  assert.equal(modeOf(file), 0o600)
  assert.deepEqual(await makeFilePrivate(file), { formerMode: undefined })
})

test('a directory above that anybody can change is named', async (t) => {
  const base = temporaryDirectory(t)
  const path = join(base, 'open', 'state')
  mkdirSync(path, { recursive: true })
  assert.equal(await changeableAncestor(path), undefined)
  chmodSync(join(base, 'open'), 0o777)
  assert.equal(await changeableAncestor(path), join(base, 'open'))
})
