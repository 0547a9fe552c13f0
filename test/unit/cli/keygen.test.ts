import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseRegionKeys } from '../../../protocol/region-key.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const program = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))

test('keygen prints a key, or writes it to a file that only its owner can read', (t) => {
  const file = join(temporaryDirectory(t), 'region.key')
  execFileSync(program, ['keygen', file], { stdio: 'ignore' })
  assert.equal(statSync(file).mode & 0o777, 0o600)
  const [key] = parseRegionKeys(readFileSync(file, 'utf8'))
  appendFileSync(file, execFileSync(program, ['keygen']))
  const keys = parseRegionKeys(readFileSync(file, 'utf8'))
  assert.deepEqual(keys[0], key)
  assert.notDeepEqual(keys[1], key)
  const { key: printed } = JSON.parse(execFileSync(program, ['keygen', '--json'], { encoding: 'utf8' })) as {
    key: string
  }
  assert.equal(parseRegionKeys(printed).length, 1)
})

test('keygen overwrites nothing', (t) => {
  const file = join(temporaryDirectory(t), 'region.key')
  execFileSync(program, ['keygen', file], { stdio: 'ignore' })
  const before = readFileSync(file)
  const { status, stderr } = spawnSync(program, ['keygen', file], { encoding: 'utf8' })
  assert.equal(status, 1)
  assert.match(stderr, /exists, and is left as it is/)
  assert.deepEqual(readFileSync(file), before)
  assert.equal(spawnSync(program, ['keygen', file, file]).status, 2)
  assert.equal(spawnSync(program, ['keygen', '--nonsense']).status, 2)
})
