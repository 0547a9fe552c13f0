import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formats } from '../../../cli/arguments.ts'
import { rootfsFormats } from '../../../protocol/rootfs-manifest.ts'

test('the command line takes the formats that there are', () => {
  assert.deepEqual(formats, rootfsFormats)
})
