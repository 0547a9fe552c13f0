import assert from 'node:assert/strict'
import { open } from 'node:fs/promises'
import { test } from 'node:test'
import { lastNoise, startFaultyLab } from './fault-daemon.ts'

const daemonOptions = ['--read-deadline', '8s']

test('a read that waits is shown with whom it waits for and when it fails, logged, and counted when it has failed', async (t) => {
  const { registry, daemon, rootfs, whole, lose } = await startFaultyLab(t, 'odd', { daemonOptions })
  assert.ok(lose(1) > 3)
  registry.faults.add({ drop: true })
  await using file = await open(rootfs)
  let hasEnded = false
  const reading = assert
    .rejects(file.read(Buffer.alloc(4096), 0, 4096, lastNoise(whole)), { code: 'EIO' })
    .finally(() => (hasEnded = true))
  for (;;) {
    const { waitingReads } = await daemon.status()
    const [longest] = waitingReads.longest
    if (longest !== undefined && longest.waitedSeconds >= 2 && daemon.log.includes('read waits long for its data')) {
      assert.ok(waitingReads.count >= 1 && waitingReads.slow >= 1)
      assert.equal(longest.images.length, 1)
      assert.ok(Math.abs(longest.waitedSeconds + longest.failsInSeconds - 8) < 0.01)
      assert.ok(longest.registry !== undefined || longest.failure !== undefined, JSON.stringify(longest))
      assert.match((await daemon.cli('status')).stdout, /^waiting +\d+ reads?, \d+ of them for 2 s or more/m)
      assert.ok((await daemon.metric('p2pfs_reads_waiting')) >= 1)
      break
    }
    assert.ok(!hasEnded, `the read has failed before it was shown: ${daemon.log}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  await reading
  assert.ok((await daemon.status()).readErrors >= 1)
  assert.ok((await daemon.metric('p2pfs_read_errors_total')) >= 1)
  assert.ok((await daemon.metric('p2pfs_read_wait_seconds_count{source="none"}')) >= 1)
  assert.ok((await daemon.metric('p2pfs_registries_silent')) >= 1)
})
