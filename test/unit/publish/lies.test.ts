import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { Lies, maxLies } from '../../../node/publish/lies.ts'
import { Catalog } from '../../../node/store/catalog.ts'
import type { LieRecord } from '../../../node/store/lie-record.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { openCatalog, reserve } from '../../support/stores.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const [a, b, c] = ['a', 'b', 'c'].map((text) => digestOf(Buffer.from(text)))
const lie: LieRecord = { manifestDigest: a!, format: 'ext4', rootfsDigest: b!, maker: 'x', told: false, foundAtMs: 5 }

test('a liar is remembered over restarts, and so is his lie, whoever tells it, for that image alone', async (t) => {
  const directory = join(temporaryDirectory(t), 'catalog')
  const first = await Catalog.open({ reserve, log: silentLog }, { directory })
  await (await Lies.open({ catalog: first })).add(lie)
  await first[Symbol.asyncDispose]()
  const lies = await Lies.open({ catalog: await openCatalog(t, directory) })
  assert.deepEqual([lies.isLiar('x'), lies.isLiar('y')], [true, false])
  assert.equal(lies.isContradicted(lie), true)
  for (const other of [{ manifestDigest: c! }, { format: 'erofs' as const }, { rootfsDigest: c! }])
    assert.equal(lies.isContradicted({ ...lie, ...other }), false)
})

test('one who passed on what he was told is disbelieved in what he is told, and in nothing else', async (t) => {
  const lies = await Lies.open({ catalog: await openCatalog(t) })
  await lies.add({ ...lie, told: true })
  assert.deepEqual([lies.isLiar('x', { told: true }), lies.isLiar('x')], [true, false])
  await lies.add(lie)
  assert.equal(lies.isLiar('x'), true)
})

test('1024 lies are remembered, in the catalog too; one more has the oldest forgotten', async (t) => {
  const catalog = await openCatalog(t)
  const lies = await Lies.open({ catalog })
  for (let i = 0; i <= maxLies; i++) await lies.add({ ...lie, maker: `liar ${i}`, foundAtMs: i })
  await lies.add({ ...lie, maker: 'liar 7', foundAtMs: maxLies + 1 })
  assert.equal((await catalog.lies()).length, maxLies)
  assert.deepEqual([lies.isLiar('liar 0'), lies.isLiar('liar 1'), lies.isLiar('liar 7')], [false, true, true])
  const again = await Lies.open({ catalog })
  assert.deepEqual([again.isLiar('liar 0'), again.isLiar('liar 1')], [false, true])
})
