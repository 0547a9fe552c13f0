import assert from 'node:assert/strict'
import { test } from 'node:test'
import { absoluteImage, formats, parseCommon } from '../../../cli/arguments.ts'
import { UsageError } from '../../../cli/failure.ts'
import { rootfsFormats } from '../../../protocol/rootfs-manifest.ts'

test('the command line takes the formats that there are', () => {
  assert.deepEqual(formats, rootfsFormats)
})

test('an empty argument is wrong usage, and says which', () => {
  assert.throws(() => parseCommon([''], 'help', ['IMAGE'], {}), usage(/^IMAGE is empty$/))
  assert.throws(() => parseCommon(['a', ''], 'help', ['IMAGE', 'DIR'], {}), usage(/^DIR is empty$/))
  assert.throws(() => parseCommon(['--control', ''], 'help', [], {}), usage(/^--control is empty$/))
})

test('oci: without a directory does not mean the present one', () => {
  for (const image of ['oci:', 'oci::v1']) assert.throws(() => absoluteImage(image, () => '/here'), usage(/directory/))
  assert.equal(
    absoluteImage('oci:x:v1', (path) => `/here/${path}`),
    'oci:/here/x:v1',
  )
})

const usage =
  (message: RegExp) =>
  (error: unknown): boolean =>
    error instanceof UsageError && message.test(error.message)
