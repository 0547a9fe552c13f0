import assert from 'node:assert/strict'
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oddImage } from '../../../netlab/images/images.ts'
import { unpackWithUmoci } from '../../../netlab/images/lab-image.ts'
import { readTree } from '../../../netlab/images/directory-tree.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('builds the same image each time, and once for each cache', async (context) => {
  const [first, second] = [temporaryDirectory(context), temporaryDirectory(context)]
  const a = await oddImage({ cacheDirectory: first })
  const b = await oddImage({ cacheDirectory: second })
  const index = (directory: string): string => readFileSync(join(directory, 'index.json'), 'utf8')
  assert.equal(index(a.layoutDirectory), index(b.layoutDirectory))
  const { ctimeMs } = lstatSync(a.layoutDirectory)
  await oddImage({ cacheDirectory: first })
  assert.equal(lstatSync(a.layoutDirectory).ctimeMs, ctimeMs)
  assert.equal(readdirSync(first).length, 1)
})

test('leaves nothing in the cache when a build is given up', async (context) => {
  const cacheDirectory = temporaryDirectory(context)
  await assert.rejects(oddImage({ cacheDirectory, signal: AbortSignal.timeout(50) }))
  assert.deepEqual(readdirSync(cacheDirectory), [])
})

test('the odd image has all kinds of files, links, attributes, removals, and odd names', async (context) => {
  const cacheDirectory = temporaryDirectory(context)
  const root = await unpackWithUmoci(await oddImage({ cacheDirectory }), join(cacheDirectory, 'bundle'))
  const tree = await readTree(root)
  const types = new Set([...tree.values()].map(({ type }) => type))
  assert.deepEqual([...types].sort(), ['block', 'character', 'directory', 'fifo', 'file', 'symlink'])
  for (const removed of ['odd/removed', 'odd/tree-removed', 'odd/hidden/gone', 'odd/hidden/gone-too']) {
    assert.ok(!tree.has(removed), removed)
  }
  assert.equal(tree.get('odd/hard-4')?.sameAs, 'odd/hard-1')
  assert.equal(tree.get('odd/hard-1')?.links, '4')
  assert.equal(tree.get('odd/setuid')?.mode, '4755')
  assert.equal(tree.get('odd/nobody')?.uid, '4000000000')
  assert.equal(tree.get('odd/nobody')?.mtime, '1000000001')
  assert.equal(tree.get('odd/sparse')?.sizeBytes, String(5 << 20))
  assert.match(tree.get('odd/capability')?.xattrs ?? '', /^security\.capability=0x0100000200040000/)
  assert.match(tree.get('odd/attributes')?.xattrs ?? '', /trusted\.lab=.*\nuser\.binary=0x00ff0a3d5c\nuser\.long=/)
  assert.ok(tree.has('odd/caf\xe9 is latin-1'))
  assert.equal(tree.get('odd/becomes-file')?.type, 'file')
  assert.ok(existsSync(join(root, 'odd', 'becomes-directory', 'inner')))
})
