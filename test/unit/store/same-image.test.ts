import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { namesToShow } from '../../../node/store/same-image.ts'

const image = digestOf(Buffer.from('image'))
const other = digestOf(Buffer.from('other image'))

const record = (reference: string, manifestDigest = image, format = 'ext4'): ImageRecord =>
  ({ reference, manifestDigest, platform: 'linux/amd64', format }) as ImageRecord

test('a name by digest is shown only where no tag of its repository is of the same image', () => {
  const byDigest = `registry:5000/app@${image}`
  const shown = (...records: ImageRecord[]): string[] => namesToShow(records).map(({ reference }) => reference)
  assert.deepEqual(shown(record('registry:5000/app:1'), record(byDigest)), ['registry:5000/app:1'])
  assert.deepEqual(shown(record(byDigest)), [byDigest])
  // The tag has moved, is of another repository, or is in another format.
  assert.deepEqual(shown(record('registry:5000/app:1', other), record(byDigest)), ['registry:5000/app:1', byDigest])
  assert.deepEqual(shown(record('registry:5000/web:1'), record(byDigest)), ['registry:5000/web:1', byDigest])
  assert.deepEqual(shown(record('registry:5000/app:1', image, 'erofs'), record(byDigest)), [
    'registry:5000/app:1',
    byDigest,
  ])
})
