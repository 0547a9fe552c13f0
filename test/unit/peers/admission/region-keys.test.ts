import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { formatRegionKey, parseRegionKeys, regionKeyBytes } from '../../../../protocol/region-key.ts'
import { loadMemberList } from '../../../../node/peers/admission/member-list.ts'
import { diallerProof, listenerProof, noisePrologue } from '../../../../node/peers/admission/proof.ts'
import { loadRegionSecrets, regionSecret } from '../../../../node/peers/admission/region-keys.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const key = new Uint8Array(regionKeyBytes).fill(1)
const other = new Uint8Array(regionKeyBytes).fill(2)

test('a region key file holds one key or two, and comments', () => {
  assert.deepEqual(parseRegionKeys(`${formatRegionKey(key)}\n`), [key])
  assert.deepEqual(parseRegionKeys(`# eu, 2026\n\n ${formatRegionKey(key)}\r\n${formatRegionKey(other)}`), [key, other])
})

test('what is no region key is refused, and the error does not show it', async (t) => {
  const line = formatRegionKey(key)
  const secret = line.slice(line.indexOf(':') + 1)
  const wrong = ['', '# only a comment', secret, line.slice(0, -1), `${line}A`, `${line}=`, `${line}\n${secret}`]
  const file = join(temporaryDirectory(t), 'region.key')
  for (const text of [...wrong, `${line}\n`.repeat(3)]) {
    writeFileSync(file, text, { mode: 0o600 })
    await assert.rejects(
      loadRegionSecrets(file, 'eu'),
      (error) =>
        isP2pfsError(error, 'invalid') && error.message.includes(file) && !error.message.includes(secret.slice(0, 8)),
      JSON.stringify(text),
    )
  }
})

test('a region key that every user of the host can read is refused', async (t) => {
  const file = join(temporaryDirectory(t), 'region.key')
  writeFileSync(file, formatRegionKey(key))
  for (const mode of [0o644, 0o604, 0o602]) {
    chmodSync(file, mode)
    await assert.rejects(loadRegionSecrets(file, 'eu'), /chmod 600/)
  }
  chmodSync(file, 0o640)
  assert.deepEqual(await loadRegionSecrets(file, 'eu'), [regionSecret(key, 'eu')])
})

test('proofs are as the specification says', () => {
  const secret = regionSecret(key, 'eu')
  const nonces = { listener: new Uint8Array(32).fill(3), dialler: new Uint8Array(32).fill(4) }
  assert.deepEqual(
    [secret, diallerProof(secret, nonces), listenerProof(secret, nonces), noisePrologue(secret, nonces)].map((bytes) =>
      Buffer.from(bytes).toString('hex').slice(0, 16),
    ),
    ['60a92823502ef048', '19231f6f036b043b', 'b378811823ce034b', '07db7fec44c7cefc'],
  )
})

test('a list of members is a peer id a line, and anything else is refused with its line', async (t) => {
  const file = join(temporaryDirectory(t), 'members')
  const member = '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo'
  writeFileSync(file, `# hosts\n${member} # host-9\n\n`)
  assert.deepEqual([...(await loadMemberList(file))], [member])
  writeFileSync(file, `${member}\nhost-9\n`)
  await assert.rejects(loadMemberList(file), /line 2: not a key/)
  await assert.rejects(loadMemberList(`${file}.none`), (error) => isP2pfsError(error, 'invalid'))
})
