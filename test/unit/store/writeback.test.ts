import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { Writeback } from '../../../node/store/writeback.ts'
import { eventually } from '../../support/deadline.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const mebibyte = 2 ** 20
const timeoutMs = 20_000

/** Has programs looked up in this directory alone, until the test ends. */
function usePath(t: TestContext, directory: string): void {
  const before = process.env['PATH']
  process.env['PATH'] = directory
  t.after(() => (process.env['PATH'] = before))
}

/** A perl that notes what it is told, and its end. @returns the note */
function notingPerl(t: TestContext): string {
  const directory = temporaryDirectory(t)
  const note = join(directory, 'note')
  const script = `#!/bin/sh\nwhile read -r line; do echo "$line" >> ${note}; done\necho end >> ${note}\n`
  writeFileSync(join(directory, 'perl'), script, { mode: 0o755 })
  usePath(t, directory)
  return note
}

const lines = async (note: string, count: number): Promise<string[]> =>
  await eventually(
    `${count} lines`,
    async () => {
      const found = existsSync(note) ? readFileSync(note, 'utf8').split('\n').slice(0, -1) : []
      return found.length >= count ? found : undefined
    },
    { timeoutMs },
  )

test('files that come in a row are begun to be written when enough have come, and the process ends with the store', async (t) => {
  const note = notingPerl(t)
  const writeback = new Writeback({ log: silentLog })
  for (const name of ['a', 'b', 'c', 'd', 'e']) writeback.noteWritten(`/chunks/${name}`, mebibyte)
  writeback[Symbol.dispose]()
  assert.deepEqual(await lines(note, 3), ['/chunks/d', '/chunks/e', 'end'])
})

test('after a pause the process ends, and few files do not start another', async (t) => {
  const note = notingPerl(t)
  using writeback = new Writeback({ log: silentLog })
  writeback.noteWritten('/chunks/a', 4 * mebibyte)
  assert.deepEqual(await lines(note, 2), ['/chunks/a', 'end'])
  writeback.noteWritten('/chunks/b', mebibyte)
  writeback.noteWritten('/chunks/c', 4 * mebibyte)
  assert.deepEqual((await lines(note, 3))[2], '/chunks/c')
})

test('without perl nothing fails', async (t) => {
  usePath(t, temporaryDirectory(t))
  const logged = Promise.withResolvers<void>()
  using writeback = new Writeback({ log: { ...silentLog, debug: () => logged.resolve() } })
  writeback.noteWritten('/chunks/a', 4 * mebibyte)
  await logged.promise
  writeback.noteWritten('/chunks/b', 4 * mebibyte)
})

/** Pages of a file that are neither on the disk nor on their way: cachestat(2); undefined where there is no such call. */
function dirtyPages(path: string): number | undefined {
  const program = `open(my $file, '<', $ARGV[0]) or die; my ($range, $stat) = (pack('QQ', 0, 0), "\\0" x 40);
    print syscall(451, fileno($file), $range, $stat, 0) < 0 ? '' : (unpack('Q5', $stat))[1]`
  const printed = execFileSync('perl', ['-e', program, path], { encoding: 'utf8' })
  return printed === '' ? undefined : Number(printed)
}

test('the bytes of files that come in a row go to the disk without a sync', async (t) => {
  const directory = temporaryDirectory(t)
  const path = (name: string): string => join(directory, name)
  const names = Array.from({ length: 12 }, (_, i) => `${i}`)
  let isTold = false
  // Somebody else may sync the same disk: then the file that nobody has noted is there as well, and nothing is proved.
  for (let attempt = 0; attempt < 20; attempt++) {
    for (const name of [...names, 'other']) writeFileSync(path(name), createRandom(attempt).bytes(mebibyte))
    if (dirtyPages(path('other')) !== mebibyte / 4096) continue
    isTold = true
    using writeback = new Writeback({ log: silentLog })
    for (const name of names) writeback.noteWritten(path(name), mebibyte)
    const isOnDisk = async (): Promise<true | undefined> => (dirtyPages(path('11')) === 0 ? true : undefined)
    await eventually('bytes on the disk', isOnDisk, { timeoutMs })
    if (dirtyPages(path('other')) !== 0) return
  }
  if (isTold) assert.fail('only what is synced is on the disk')
  t.skip('neither the kernel nor the filesystem says what is not on the disk')
})
