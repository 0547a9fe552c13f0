import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { RawImporter } from '../../../node/images/raw-importer.ts'
import type { FindOptions } from '../../../node/model/image.ts'
import { chunkRequests, sizeOf, tablesOf } from '../../../node/model/rootfs-chunks.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { ImportTransactions } from '../../../node/store/import-transaction.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { rawChunkBytes } from '../../../protocol/raw-image.ts'
import { encodeRootfsManifest, parseRootfsManifest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { openChunkStore } from '../../support/stores.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const platform = { platform: 'linux/amd64' }
const mebibyte = 1024 * 1024

class Lab {
  readonly directory: string
  readonly inventory: Inventory
  readonly #importer: RawImporter

  private constructor(directory: string, inventory: Inventory) {
    this.directory = directory
    this.inventory = inventory
    this.#importer = new RawImporter({ inventory, transactions: new ImportTransactions({ inventory }) })
  }

  static async open(t: TestContext): Promise<Lab> {
    const directory = temporaryDirectory(t)
    const chunks = await openChunkStore(join(directory, 'chunks'))
    t.after(async () => await chunks[Symbol.asyncDispose]())
    const region = {
      announce: () => undefined,
      announceChunks: () => undefined,
      withdrawChunks: () => undefined,
      forget: () => undefined,
    }
    return new Lab(directory, new Inventory({ chunks, region }))
  }

  /** Makes a file. @param parts places and bytes; holes are between them */
  file(name: string, sizeBytes: number, parts: readonly (readonly [number, Uint8Array])[]): string {
    const path = join(this.directory, name)
    const fd = openSync(path, 'w')
    for (const [offset, bytes] of parts) writeSync(fd, bytes, 0, bytes.length, offset)
    closeSync(fd)
    truncateSync(path, sizeBytes)
    return path
  }

  async import(source: string, options: Partial<FindOptions> = {}): ReturnType<RawImporter['import']> {
    const { signal } = new AbortController()
    return await this.#importer.import(source, parseReference('local:disk'), platform, { signal, ...options })
  }

  /** Names of all files of chunks, with names or without. */
  files(): string[] {
    return readdirSync(join(this.directory, 'chunks'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /^[0-9a-f]{64}$|^[0-9a-f]{12}-/.test(entry.name))
      .map(({ name }) => name)
  }

  /** The bytes of an image, put together from its chunks. */
  async bytes(manifest: RootfsManifest): Promise<Buffer> {
    const chunks: Uint8Array[] = []
    for (const { digest } of chunkRequests(tablesOf(manifest))) chunks.push((await this.inventory.get(digest))!)
    return Buffer.concat(chunks, sizeOf(manifest))
  }
}

test('an image is the bytes of its file, wherever they come from, and however much of it is holes', async (t) => {
  const lab = await Lab.open(t)
  const sizeBytes = 9 * mebibyte + 777
  // In a hole between others, across two chunks, and in the last bytes.
  const parts = [
    [mebibyte, randomBytes(5000)],
    [3 * rawChunkBytes - 100, randomBytes(200)],
    [sizeBytes - 10, randomBytes(10)],
  ] as const
  const sparse = lab.file('sparse', sizeBytes, parts)
  const whole = readFileSync(sparse)
  const dense = lab.file('dense', sizeBytes, [[0, whole]])
  const { manifest, record } = await lab.import(sparse)
  assert.equal(sizeOf(manifest), sizeBytes)
  assert.ok((await lab.bytes(manifest)).equals(whole))
  assert.equal(lab.inventory.count, 5, 'one of zeros, and those that have something')
  assert.deepEqual(parseRootfsManifest(encodeRootfsManifest(manifest)), manifest)
  assert.equal((await lab.import(dense)).record.rootfsDigest, record.rootfsDigest)

  const pipe = join(lab.directory, 'pipe')
  execFileSync('mkfifo', [pipe])
  const writer = spawn('sh', ['-c', 'exec 3<>"$1"; cat "$2" >"$1"; exec 3>&-', 'sh', pipe, dense], { stdio: 'inherit' })
  t.after(() => writer.kill())
  while (writer.pid === undefined || !readdirSync(`/proc/${writer.pid}/fd`).includes('3'))
    await new Promise(setImmediate)
  assert.equal((await lab.import(pipe)).record.rootfsDigest, record.rootfsDigest)
  assert.equal(lab.inventory.count, 5)
})

test('an image of nothing but a hole has one chunk, or two where it ends within one', async (t) => {
  const lab = await Lab.open(t)
  const { manifest } = await lab.import(lab.file('zeros', 200 * mebibyte, []))
  assert.deepEqual([lab.inventory.count, manifest.layers.length], [1, 4])
  assert.equal(manifest.layers[0]!.diffId, manifest.layers[2]!.diffId, 'layers of zeros are one')
  const { manifest: uneven } = await lab.import(lab.file('uneven', rawChunkBytes + 1, []))
  assert.deepEqual([lab.inventory.count, sizeOf(uneven)], [2, rawChunkBytes + 1])
})

test('a byte of an image that changes changes one chunk', async (t) => {
  const lab = await Lab.open(t)
  const bytes = randomBytes(4 * mebibyte)
  const file = lab.file('disk', bytes.length, [[0, bytes]])
  await lab.import(file)
  const { count } = lab.inventory
  bytes[mebibyte]! ^= 1
  writeFileSync(file, bytes)
  await lab.import(file)
  assert.equal(lab.inventory.count, count + 1)
})

const failures: Record<string, (lab: Lab, file: string, abort: AbortController) => void> = {
  'is written to meanwhile': (_lab, file) => appendFileSync(file, 'more'),
  'becomes shorter': (_lab, file) => truncateSync(file, mebibyte),
  'is given up': (_lab, _file, abort) => abort.abort(new Error('given up')),
  'finds no room for its chunks': (lab) => rmSync(join(lab.directory, 'chunks/incoming'), { recursive: true }),
}
const codes: Record<string, string | undefined> = {
  'is written to meanwhile': 'conflict',
  'becomes shorter': 'conflict',
  'is given up': undefined,
  'finds no room for its chunks': 'unavailable',
}

for (const [name, fail] of Object.entries(failures)) {
  test(`an import that ${name} leaves nothing, and takes nothing from other images`, async (t) => {
    const lab = await Lab.open(t)
    const bytes = randomBytes(24 * mebibyte)
    const { manifest } = await lab.import(lab.file('kept', mebibyte, [[0, bytes.subarray(0, mebibyte)]]))
    for (const table of tablesOf(manifest)) lab.inventory.track(table)
    const before = lab.files().toSorted()
    const abort = new AbortController()
    const file = lab.file('disk', bytes.length, [[0, bytes]])
    let reports = 0
    const importing = lab.import(file, {
      signal: abort.signal,
      onProgress: () => {
        if (++reports === 2) fail(lab, file, abort)
      },
    })
    await assert.rejects(importing, (error: Error & { code?: string }) => {
      assert.equal(error.code, codes[name], error.message)
      return true
    })
    assert.ok(reports >= 2)
    const left = lab.files().filter((file) => !file.includes('-'))
    assert.deepEqual(left.toSorted(), before)
    assert.ok((await lab.bytes(manifest)).equals(bytes.subarray(0, mebibyte)))
  })
}

test('a file that has nothing, and one that has too much, are refused before they are read', async (t) => {
  const lab = await Lab.open(t)
  await assert.rejects(lab.import(lab.file('empty', 0, [])), { code: 'invalid', message: /empty: it is empty/ })
  await assert.rejects(lab.import(lab.file('huge', 2 ** 40, [])), { code: 'invalid', message: /larger than 128GiB/ })
  await assert.rejects(lab.import(join(lab.directory, 'none')), { code: 'missing' })
  await assert.rejects(lab.import('/dev/zero'), { code: 'unsupported', message: /dd if=\/dev\/zero/ })
  await assert.rejects(lab.import(lab.directory), { code: 'unsupported' })
  assert.equal(lab.inventory.count, 0)
})
