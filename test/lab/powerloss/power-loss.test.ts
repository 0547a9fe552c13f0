import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { filesystems, whyNot } from './filesystems.ts'
import { losePower } from './power-loss.ts'
import { killStores } from './process-death.ts'

const seed = Math.floor(Math.random() * 2 ** 31)

/** In memory: the disk is in it. */
function memoryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join('/dev/shm', 'p2pfs-powerloss-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

for (const filesystem of filesystems)
  test(`a power loss at any instant, on ${filesystem.name}, leaves no wrong chunk that counts as here, and loses none that was reported durable`, async (t) => {
    const reason = whyNot(filesystem)
    if (reason !== undefined) return t.skip(reason)
    let [doubtful, promised] = [0, 0]
    for await (const round of losePower(memoryDirectory(t), { filesystem, rounds: 5, seed })) {
      assert.deepEqual(round.findings, [], `seed ${seed}, round ${round.seed}, ${round.mountedWith}`)
      doubtful += round.doubtful
      promised += round.promised
    }
    assert.ok(doubtful > 0 && promised > 0)
  })

test('kill -9 at any instant leaves every chunk that was kept, whole and without doubt', async (t) => {
  let kept = 0
  for await (const death of killStores(memoryDirectory(t), { kills: 20, seed })) {
    assert.deepEqual(death.findings, [], `seed ${seed}, kill ${death.seed}`)
    kept += death.kept
  }
  assert.ok(kept > 0)
})
