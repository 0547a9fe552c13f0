import assert from 'node:assert/strict'
import { test } from 'node:test'
import { guestImage } from '../../netlab/guest-image.ts'
import { runBoot, scratchBytes } from '../../netlab/scenario-boot.ts'

/** Of the image, what a boot may fetch. The figure is 14 %; more means that something reads what nobody asked for. */
const maxFetchedShare = 0.25
/** Directories of the overlay, bytes. */
const overlayBytes = 1 << 20

test('a VM boots from the rootfs, writes to it and swaps on its scratch, with a fraction of the image fetched', async (context) => {
  const outcome = await runBoot(await guestImage(), { tell: (line) => context.diagnostic(line) })
  assert.ok(outcome.swapBytes >= 60 << 20, `${outcome.swapBytes} bytes of swap`)
  assert.ok(outcome.scratch.availableBytes >= scratchBytes - overlayBytes, `${outcome.scratch.availableBytes} bytes of scratch`)
  assert.ok(outcome.fetchedBytes < maxFetchedShare * outcome.rootfsBytes, `${outcome.fetchedBytes} of ${outcome.rootfsBytes} bytes`)
})
