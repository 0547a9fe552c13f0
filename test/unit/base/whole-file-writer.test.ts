import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { WholeFileWriter } from '../../../node/base/whole-file-writer.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('a file is there whole, in place of an older one, and nothing else is left', (t) => {
  const directory = temporaryDirectory(t)
  const temporary = join(directory, 'incoming')
  mkdirSync(temporary)
  const files = new WholeFileWriter({ temporary })
  const path = join(directory, 'file')
  files.write(path, Buffer.from('older'))
  files.write(path, Buffer.alloc(100_000, 1))
  assert.deepEqual(readFileSync(path), Buffer.alloc(100_000, 1))
  assert.deepEqual(readdirSync(temporary), [])
})

test('a write that fails leaves nothing behind', (t) => {
  const directory = temporaryDirectory(t)
  const temporary = join(directory, 'incoming')
  mkdirSync(temporary)
  const files = new WholeFileWriter({ temporary })
  assert.throws(() => files.write(join(directory, 'absent', 'file'), Buffer.from('x')), /ENOENT/)
  assert.deepEqual(readdirSync(temporary), [])
  rmSync(temporary, { recursive: true })
  assert.throws(() => files.write(join(directory, 'file'), Buffer.from('x')), /ENOENT/)
})
