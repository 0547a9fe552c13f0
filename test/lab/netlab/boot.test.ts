import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { guestImage, writeBusyboxDrive } from '../../../netlab/images/guest-image.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { run } from '../../../netlab/hosts/process.ts'
import { runBoot, scratchBytes } from '../../../netlab/scenarios/boot.ts'
import { VirtualMachine, type Drive } from '../../../netlab/hosts/virtual-machine.ts'

/** The share of the image that a boot may fetch. The figure is 14 to 18 %; more means that something reads too much. */
const maxFetchedShare = 0.25
/** A limit for a busy machine; it takes seconds on an idle one. */
const guestTimeoutMs = 120_000
/** The size of the overlay's own directories. */
const overlayBytes = 64 << 10

test('a VM boots, writes to its rootfs and swaps on its scratch, with a part of the image fetched', async (context) => {
  const outcome = await runBoot(await guestImage(), { tell: (line) => context.diagnostic(line) })
  assert.ok(outcome.swapBytes >= 60 << 20, `${outcome.swapBytes} bytes of swap`)
  assert.ok(
    outcome.scratch.availableBytes >= scratchBytes - overlayBytes,
    `${outcome.scratch.availableBytes} bytes of scratch`,
  )
  assert.ok(
    outcome.fetchedBytes < maxFetchedShare * outcome.rootfsBytes,
    `${outcome.fetchedBytes} of ${outcome.rootfsBytes} bytes`,
  )
})

test('overlay-init needs no more than busybox, and says what it lacks', async () => {
  await using network = await Network.create()
  const host = await network.addHost('a')
  const root: Drive = { path: join(host.directory, 'root.img'), readOnly: true }
  const scratch: Drive = { path: join(host.directory, 'scratch.img'), readOnly: false }
  const kernel = await writeBusyboxDrive(root.path, host.directory)
  await run('mke2fs', ['-F', '-q', '-t', 'ext4', scratch.path, '16M'])
  const shows = async (drives: Drive[], pattern: RegExp, ...kernelArguments: string[]): Promise<void> => {
    const options = { kernel, drives, kernelArguments: ['init=/sbin/overlay-init', ...kernelArguments] }
    await using machine = await VirtualMachine.start(host, options)
    await machine.whenLine(pattern, { timeoutMs: guestTimeoutMs })
    await machine.whenOff({ timeoutMs: guestTimeoutMs })
  }
  await Promise.all([
    shows([root, scratch], /^busybox guest: 1 written written/),
    shows([root], /^overlay-init: no scratch drive: a writable one beside nvme0n1 is not there/),
    shows([root, root], /^overlay-init: cannot mount the scratch \/dev\/nvme0n2/, 'p2pfs.scratch=/dev/nvme0n2'),
  ])
})
