import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { killDaemons } from './daemon-death.ts'
import { loseDaemonPower } from './daemon-power-loss.ts'
import { filesystems } from './filesystems.ts'

const seed = Math.floor(Math.random() * 2 ** 31)
const [filesystem] = filesystems

/** In memory: the disk is in it. */
function memoryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join('/dev/shm', 'p2pfs-powerloss-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

test('a daemon that loses its power at any instant starts, serves right bytes, and has all images whose import it reported', async (t) => {
  for await (const round of loseDaemonPower(memoryDirectory(t), { filesystem: filesystem!, rounds: 4, seed }))
    assert.deepEqual(round.findings, [], `seed ${seed}, round ${round.seed}, ${round.mountedWith}`)
})

test('a daemon that is killed at any instant fails no read, and the next has all images whose import it reported', async (t) => {
  for await (const deaths of killDaemons(memoryDirectory(t), { kills: 8, seed }))
    assert.deepEqual(deaths.findings, [], `seed ${seed}, life ${deaths.seed}`)
})
