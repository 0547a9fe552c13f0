import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkMountDirectory } from '../../../node/operations/mount-directory.ts'
import { isUsage } from '../../../node/control/usage.ts'
import { isP2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
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
  for (const name of ['state2', 'other', '']) await checkMountDirectory(join(top, name), state)
})

test('a directory that is not there, and a file, are refused before the image is looked for', async (t) => {
  const top = temporaryDirectory(t)
  writeFileSync(join(top, 'file'), '')
  const refused = async (name: string, code: ErrorCode, message: RegExp): Promise<void> =>
    await assert.rejects(
      checkMountDirectory(join(top, name), '/state'),
      (error) => isP2pfsError(error, code) && message.test(error.message),
    )
  await refused('nowhere', 'missing', /^no such directory: .*; make it first$/)
  await refused('file/below', 'missing', /^no such directory/)
  await refused('file', 'conflict', /^not a directory: /)
})
