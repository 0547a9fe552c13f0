import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'
import { closeSync, openSync, readdirSync, readFileSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import type { SeedResult } from '../../../node/control/api.ts'
import { OciLayout } from '../../support/oci-layout.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { DaemonProcess } from '../daemon-process.ts'

const mebibyte = 2 ** 20
const modelBytes = 1600 * mebibyte
const maxMemoryBytes = 400e6
const maxFileBytes = 64 * mebibyte

/** A tar of one file that nothing can compress. */
function writeModelTar(path: string): void {
  const header = writeTar([{ path: 'model.safetensors', type: 'file', content: Buffer.alloc(0) }]).subarray(0, 512)
  header.write(modelBytes.toString(8).padStart(11, '0'), 124)
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148)
  const noise = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16))
  const fd = openSync(path, 'w')
  writeSync(fd, header)
  for (let at = 0; at < modelBytes; at += mebibyte) writeSync(fd, noise.update(Buffer.alloc(mebibyte)))
  writeSync(fd, Buffer.alloc(1024))
  closeSync(fd)
}

/** The largest file of the daemon's state that is no chunk; files come and go while this looks. */
function largestFile(stateDir: string): { name: string; sizeBytes: number } {
  let largest = { name: '', sizeBytes: 0 }
  for (const name of readdirSync(stateDir, { recursive: true, encoding: 'utf8' })) {
    if (/^chunks\/[0-9a-f]{2}\//.test(name) || name.startsWith('mnt')) continue
    const found = statSync(join(stateDir, name), { throwIfNoEntry: false })
    if (found?.isFile() === true && found.size > largest.sizeBytes) largest = { name, sizeBytes: found.size }
  }
  return largest
}

test('a model file of 1.6 GB is imported within 400 MB of memory, and without a large file on the way', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const tar = join(daemon.directory, 'model.tar')
  writeModelTar(tar)
  const layout = await OciLayout.create(join(daemon.directory, 'layout'))
  await layout.addImage('model', [await layout.addLayer(tar, 'none')], {})
  const { daemonPid } = await daemon.status()
  const state = join(daemon.directory, 'state')
  let largest = largestFile(state)
  const timer = setInterval(() => {
    const now = largestFile(state)
    if (now.sizeBytes > largest.sizeBytes) largest = now
  }, 100)
  const { sizeBytes } = await daemon
    .json<SeedResult>('seed', `oci:${layout.directory}:model`)
    .finally(() => clearInterval(timer))
  assert.ok(sizeBytes > modelBytes)
  const peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${daemonPid}/status`, 'utf8'))?.[1]) * 1024
  t.diagnostic(`peak memory ${Math.round(peak / 1e6)} MB, largest file ${largest.name} of ${largest.sizeBytes} bytes`)
  assert.ok(peak < maxMemoryBytes, `${peak} bytes`)
  assert.ok(largest.sizeBytes < maxFileBytes, `${largest.name} has ${largest.sizeBytes} bytes`)
  assert.equal(
    (await daemon.status()).chunks,
    Math.ceil((sizeBytes - modelBytes) / 131_072) + modelBytes / maxChunkBytes,
  )
})
