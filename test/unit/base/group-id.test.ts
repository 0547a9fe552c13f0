import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { groupId } from '../../../node/base/group-id.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('a group is known by its number or its name', async (t) => {
  const file = join(temporaryDirectory(t), 'group')
  writeFileSync(file, 'root:x:0:\np2pfs:x:998:alice,bob\n12a:x:7:\nbroken\nodd:x::\n')
  assert.equal(await groupId('p2pfs', file), 998)
  assert.equal(await groupId('12a', file), 7)
  assert.equal(await groupId('65534', file), 65_534)
  assert.equal(await groupId('0', file), 0)
  for (const group of ['', 'alice', 'P2PFS', 'p2pfs:x', 'broken', 'odd', '4294967295', '99999999999', '-1', '1.5'])
    await assert.rejects(groupId(group, file), (error) => isP2pfsError(error, 'invalid'), group)
})
