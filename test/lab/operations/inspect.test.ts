import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oddImage } from '../../../netlab/images/images.ts'
import type { InspectResult, MountResult } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'

test('inspect shows an image in the format that is here, and changes nothing', async (t) => {
  const { layoutDirectory, tag } = await oddImage()
  const image = `oci:${layoutDirectory}:${tag}`
  const daemon = await DaemonProcess.start(t)
  await daemon.json<MountResult>('mount', image, daemon.target('tree'), '--as', 'tree')
  const state = async (): Promise<object> => {
    const { images, chunks } = await daemon.status()
    return { images, chunks, files: readdirSync(join(daemon.directory, 'state/chunks'), { recursive: true }).length }
  }
  const before = await state()
  const { format, localBytes, layers } = await daemon.json<InspectResult>('inspect', image)
  assert.equal(format, 'erofs')
  assert.ok(localBytes > 0)
  assert.ok(layers.every(({ entries }) => Object.keys(entries).length > 0))
  assert.equal((await daemon.json<InspectResult>('inspect', image, '--format', 'ext4')).format, 'erofs')
  assert.deepEqual(await state(), before)
})
