import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkMountDirectory } from '../../../node/operations/mount-directory.ts'
import { isUsage } from '../../../node/control/usage.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('the root of the host is refused, as wrong usage', async () => {
  await assert.rejects(checkMountDirectory('/', '/state'), (error) => isUsage(error))
  await assert.rejects(checkMountDirectory('/tmp/..', '/state'), (error) => isUsage(error))
})

test('a directory in the state directory is refused, also through a symbolic link', async (t) => {
  const top = temporaryDirectory(t)
  const state = join(top, 'state')
  for (const path of ['state/chunks', 'state2', 'other']) mkdirSync(join(top, path), { recursive: true })
  symlinkSync(join(state, 'chunks'), join(top, 'link'))
  for (const name of ['state', 'state/chunks', 'link'])
    await assert.rejects(checkMountDirectory(join(top, name), state), (error) => isP2pfsError(error, 'invalid'))
  for (const name of ['state2', 'other', 'nowhere', '']) await checkMountDirectory(join(top, name), state)
})
