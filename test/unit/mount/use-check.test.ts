import assert from 'node:assert/strict'
import { openSync, closeSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { runTool } from '../../../node/mount/placement/run-tool.ts'
import { UseCheck } from '../../../node/mount/placement/use-check.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('a file is in use while anybody has it open', async (t) => {
  const uses = new UseCheck({ run: runTool })
  const file = join(temporaryDirectory(t), "scratch's.img")
  assert.equal(await uses.ofFile(file), 'free', 'a file that is not there')
  writeFileSync(file, 'x')
  assert.equal(await uses.ofFile(file), 'free')
  const fd = openSync(file, 'r')
  assert.equal(await uses.ofFile(file), 'in use')
  closeSync(fd)
  assert.equal(await uses.ofFile(file), 'free')
})

test('without perl the use of a file is unknown', async () => {
  const uses = new UseCheck({ run: async () => ({ ok: false, message: 'perl: not found' }) })
  assert.equal(await uses.ofFile('/x'), 'unknown')
  assert.equal(await uses.ofUpperLayer('/x'), 'unknown')
})
