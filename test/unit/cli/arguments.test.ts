import assert from 'node:assert/strict'
import { test } from 'node:test'
import { absoluteImage, formats } from '../../../cli/arguments.ts'
import { describeCommand, parseCommand } from '../../../cli/command.ts'
import { UsageError } from '../../../cli/failure.ts'
import { rootfsFormats } from '../../../protocol/rootfs-manifest.ts'

test('the command line takes the formats that there are', () => {
  assert.deepEqual(formats, rootfsFormats)
})

const mount = describeCommand({
  name: 'mount',
  usage: ['IMAGE DIR'],
  text: '',
  positionals: { IMAGE: {}, DIR: {}, FILE: { isOptional: true } },
  options: { as: { value: 'drive|tree', help: '', choices: ['drive', 'tree'] }, writable: { help: '' } },
})

test('options and arguments are as the description has them', () => {
  const { positionals, values, json, control } = parseCommand(['a', 'b', '--as', 'tree', '--writable', '--json'], mount)
  assert.deepEqual(
    { positionals, values, json },
    { positionals: ['a', 'b'], values: { as: 'tree', writable: true }, json: true },
  )
  assert.equal(typeof control, 'string')
  assert.equal(parseCommand(['a', 'b', 'c', '--control', '/s'], mount).control, '/s')
})

test('an empty argument, a wrong number and another choice are wrong usage, and say which', () => {
  assert.throws(() => parseCommand(['', 'b'], mount), usage(/^IMAGE is empty$/))
  assert.throws(() => parseCommand(['a', ''], mount), usage(/^DIR is empty$/))
  assert.throws(() => parseCommand(['a', 'b', '--control', ''], mount), usage(/^--control is empty$/))
  assert.throws(() => parseCommand(['a'], mount), usage(/^expected IMAGE DIR \[FILE\], got 1 argument; see --help$/))
  assert.throws(() => parseCommand(['a', 'b', 'c', 'd'], mount), usage(/got 4 arguments/))
  assert.throws(() => parseCommand(['a', 'b', '--as', 'x'], mount), usage(/^--as takes drive or tree, not x$/))
  assert.throws(() => parseCommand(['a', 'b', '--asx'], mount), usage(/^Unknown option '--asx'; see --help$/))
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
