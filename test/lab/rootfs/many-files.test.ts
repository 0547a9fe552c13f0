import assert from 'node:assert/strict'
import { createWriteStream, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { importLayer } from '../../../node/rootfs/layer-import.ts'
import { writeTar, type TarEntry } from '../../support/tar-writer.ts'
import { DaemonProcess } from '../daemon-process.ts'

const { signal } = new AbortController()
const isSlow = process.env['P2PFS_SLOW'] !== undefined
const slow = { skip: !isSlow && 'takes minutes; P2PFS_SLOW=1 runs it' }
const filesPerDirectory = 20
const endBytes = 1024

/** A tar of small files, as package managers of programming languages leave them. */
function* manyFiles(count: number): Generator<Buffer> {
  for (let first = 0; first < count; first += filesPerDirectory) {
    const directory = `usr/lib/node_modules/package-${Math.floor(first / 1000)}/dist/module-${first % 1000}`
    const files = Array.from({ length: filesPerDirectory }, (_, i): TarEntry => ({
      path: `${directory}/component-${first + i}.js`,
      type: 'file',
      content: Buffer.from(`export const number = ${first + i}`.padEnd(160, ' ')),
    }))
    yield writeTar([{ path: directory, type: 'directory' }, ...files]).subarray(0, -endBytes)
  }
  yield Buffer.alloc(endBytes)
}

for (const [count, maxBytes, options] of [
  [200_000, 360e6, {}],
  [1_000_000, 420e6, slow],
] as const) {
  for (const format of ['ext4', 'erofs'] as const) {
    test(`${count} files are imported within ${maxBytes / 1e6} MB of memory: ${format}`, options, async (t) => {
      const daemon = await DaemonProcess.start(t)
      const tar = join(daemon.directory, 'many.tar')
      await pipeline(Readable.from(manyFiles(count)), createWriteStream(tar))
      await daemon.json('import', tar, 'many', '--format', format)
      const { daemonPid } = await daemon.status()
      const peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${daemonPid}/status`, 'utf8'))?.[1]) * 1024
      t.diagnostic(`peak memory ${Math.round(peak / 1e6)} MB`)
      assert.ok(peak < maxBytes, `${peak} bytes`)
    })
  }
}

test('two million plain files are within the limits of a layer', slow, async () => {
  const { index } = await importLayer(
    Readable.from(manyFiles(2_000_000)),
    { name: 'many' },
    { put: async () => undefined },
    { signal, limits: { maxLayerBytes: 2 ** 40, maxMetadataBytes: 512 * 2 ** 20 } },
  )
  assert.equal(index.entries.length, 2_000_000 + 2_000_000 / filesPerDirectory)
})
