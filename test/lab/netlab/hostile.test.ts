import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runBadMembers, type Act } from '../../../netlab/hostile/bad-members.ts'
import { runStrangers } from '../../../netlab/hostile/strangers.ts'
import { debianImages, oddImage } from '../../../netlab/images/images.ts'

/** The longest read and mount that pass on a machine with other work to do (ms); on an idle one they take a tenth. */
const patienceMs = 20_000

test('strangers cost honest hosts a line in the log, and learn nothing', async () => {
  const image = await oddImage()
  const outcome = await runStrangers(image, { rounds: 1, connectionsPerSecond: 200, halfOpen: 1000 })
  assert.ok(outcome.stranger.opened > 500, `${outcome.stranger.opened} connections`)
  assert.equal(outcome.stranger.longestHeardBytes, 32)
  assert.ok(outcome.with.cold.longest < patienceMs && outcome.with.joinMs < patienceMs)
  assert.ok(outcome.with.peakMemoryBytes - outcome.without.peakMemoryBytes < 128 << 20)
  assert.deepEqual(outcome.warnings, ['connections were turned away: the other side did not prove the region key'])
})

/** All that operators read of him, besides strangers. */
const lines = [
  'peer broke the protocol; it is banned for ten minutes',
  'members contradict each other about an image; none of them is believed',
]
/** The count that must have grown, or the act shows nothing. */
const tried: Partial<Record<Act, 'asked for chunks' | 'asked for objects' | 'flooding' | 'there'>> = {
  silence: 'asked for chunks',
  'wrong bytes': 'asked for objects',
  'one kilobyte a second': 'asked for objects',
  'forged records': 'asked for objects',
  'a flood of claims': 'flooding',
  'addresses of others': 'there',
}

test('a bad member with many identities costs honest hosts lines in the log: no wrong byte, no failed read', async () => {
  const { gzip } = await debianImages()
  const outcomes = await runBadMembers(gzip, await oddImage(), {
    acts: Object.keys(tried) as Act[],
    identities: 5,
    listKeys: false,
  })
  for (const { act, mountMs, longestReadMs, errors, isRight, connectionsToCanary, warnings, member } of outcomes) {
    const was = tried[act]!
    assert.deepEqual(errors, [], act)
    assert.ok(isRight, `${act}: bytes are wrong`)
    assert.ok(mountMs < patienceMs && longestReadMs < patienceMs, `${act}: ${mountMs} ms, ${longestReadMs} ms`)
    assert.ok(member.connected > 0, `${act}: he was not there`)
    if (was === 'asked for chunks') assert.ok(member.claims > 0, `${act}: he claimed nothing`)
    if (was === 'asked for objects') assert.ok(member.objectRequests > 0, `${act}: he was asked for nothing`)
    if (was === 'flooding') assert.ok(member.flooded > 0, `${act}: he did not flood`)
    // Five identities with twenty addresses each: of one address eight are dialled a minute, of one host 32.
    assert.ok(connectionsToCanary <= 5 * 32, `${act}: ${connectionsToCanary} connections to a host of his choice`)
    for (const warning of warnings)
      assert.ok(lines.includes(warning) || /turned away/.test(warning), `${act}: ${warning}`)
  }
})
