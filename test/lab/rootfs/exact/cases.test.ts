import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { writeTar } from '../../../support/tar-writer.ts'
import { cases } from './cases.ts'
import { compareImages } from './compare-images.ts'

let failures: Map<string, string>

/** All cases are compared at once, because each comparison of trees costs a process. */
before(async () => {
  const images = Object.values(cases).map((layers, i) => {
    const tars = layers.map((entries) => writeTar(entries))
    return { name: `case-${i}`, layers: tars.map((tar) => ({ blob: tar, tar })) }
  })
  failures = await compareImages(images)
})

for (const [i, name] of Object.keys(cases).entries()) {
  test(name, () => assert.equal(failures.get(`case-${i}`), undefined))
}
