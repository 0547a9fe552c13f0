import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import {
  parseAuthorizedRequest,
  parseBody,
  parseDirectoryRequest,
  parseExportRequest,
  parseImageRequest,
  parseImportRequest,
  parseCancelSeedRequest,
  parseMountRequest,
  parsePushRequest,
  parseSeedJobRequest,
  parseSeedRequest,
  type RequestBody,
} from '../../../node/control/requests.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'

const refuses = (parse: (body: RequestBody) => object, body: object, message: RegExp): void =>
  assert.throws(
    () => parse(body as RequestBody),
    (error) => isP2pfsError(error, 'invalid') && message.test(error.message),
  )

test('a body is one JSON object', () => {
  assert.deepEqual(parseBody('{"image": "debian"}'), { image: 'debian' })
  for (const text of ['', '{', '[]', 'null', '"text"', '7']) {
    assert.throws(
      () => parseBody(text),
      (error) => isP2pfsError(error, 'invalid'),
    )
  }
})

test('a request keeps what it knows and drops what it does not', () => {
  const body = { image: 'debian', platform: 'linux/amd64', format: 'erofs', colour: 'green' }
  assert.deepEqual(parseImageRequest(body), { image: 'debian', platform: 'linux/amd64', format: 'erofs' })
  assert.deepEqual(parseImageRequest({ image: 'debian' }), { image: 'debian' })
  assert.deepEqual(parseSeedRequest({ image: 'debian', publish: true }), { image: 'debian', publish: true })
  assert.deepEqual(parseDirectoryRequest({ directory: '/mnt' }), { directory: '/mnt' })
  assert.deepEqual(parseExportRequest({ image: 'debian', file: '/f' }), { image: 'debian', file: '/f' })
  assert.deepEqual(parseImportRequest({ source: 'oci:dir', name: 'app' }), { source: 'oci:dir', name: 'app' })
})

test('a value of the wrong type is refused with its name', () => {
  refuses(parseImageRequest, {}, /needs a text for image/)
  refuses(parseImageRequest, { image: '' }, /needs a text for image/)
  refuses(parseImageRequest, { image: 'debian', platform: 7 }, /needs a text for platform/)
  refuses(parseImageRequest, { image: 'debian', platform: 'amd64' }, /not a platform: "amd64"; it is OS\/ARCH/)
  refuses(parseSeedRequest, { image: 'debian', publish: 'yes' }, /publish is neither true nor false/)
  refuses(parseDirectoryRequest, { directory: 'mnt' }, /directory is not an absolute path: mnt/)
  refuses(parseExportRequest, { image: 'debian', file: 'f' }, /file is not an absolute path/)
  refuses(parseImportRequest, { source: 'dir', name: 'app' }, /source is not an absolute path/)
  const mount = { image: 'debian', directory: '/mnt' }
  refuses(parseMountRequest, { ...mount, as: 'file' }, /as takes drive or tree/)
  refuses(parseMountRequest, { ...mount, pull: 'often' }, /pull takes one of auto, always, newer, missing, never/)
  refuses(parseMountRequest, { ...mount, scratchBytes: -1 }, /scratchBytes is not a number of bytes/)
  for (const owner of [1000, null, {}, { uid: 1000 }, { uid: '0', gid: 0 }, { uid: 2 ** 32 - 1, gid: 0 }])
    refuses(parseMountRequest, { ...mount, owner }, /owner is not a user and a group/)
  refuses(parseMountRequest, { ...mount, as: 'tree', allowOthers: 1 }, /allowOthers is neither true nor false/)
})

test('a mount request has its defaults filled in, and refuses options that do not go together', () => {
  const mount = { image: 'debian', directory: '/mnt' }
  assert.deepEqual(parseMountRequest(mount), { ...mount, as: 'drive', writable: false, pull: 'auto' })
  const tree = { ...mount, as: 'tree', writable: true, limitBytes: 4096 }
  assert.deepEqual(parseMountRequest(tree), { ...tree, pull: 'auto' })
  refuses(parseMountRequest, { ...mount, writable: true }, /a drive is never writable/)
  refuses(parseMountRequest, { ...mount, as: 'tree', limitBytes: 4096 }, /--size .* needs --writable/)
  refuses(parseMountRequest, { ...mount, as: 'tree', scratchBytes: 4096 }, /--scratch is a second drive/)
  const owner = { uid: 1000, gid: 1001 }
  assert.deepEqual(parseMountRequest({ ...mount, owner }).owner, owner)
  refuses(parseMountRequest, { ...mount, as: 'tree', owner }, /--owner is for a drive/)
  assert.equal(parseMountRequest({ ...mount, as: 'tree', allowOthers: true }).allowOthers, true)
  refuses(parseMountRequest, { ...mount, allowOthers: true }, /--allow-others is for a tree/)
})

test('an order for the region says where and for how long, and refuses what makes no sense', () => {
  const whole = { image: 'debian', copies: 3, hot: true, ttlMs: 1000, atMs: 5, wait: false, timeoutMs: 7 }
  assert.deepEqual(parseSeedJobRequest(whole), whole)
  assert.deepEqual(parseSeedJobRequest({ image: 'debian', copies: 'all' }), { image: 'debian', copies: 'all' })
  assert.deepEqual(parseSeedJobRequest({ image: 'debian', on: ['a'] }), { image: 'debian', on: ['a'] })
  refuses(parseSeedJobRequest, { image: 'debian', copies: 1, on: ['a'] }, /give one of them/)
  for (const copies of [0, -1, 1.5, 1025, '3', null])
    refuses(parseSeedJobRequest, { image: 'debian', copies }, /copies takes a number of hosts from 1 to 1024, or all/)
  for (const on of [[], 'a', [''], [1], Array.from({ length: 1025 }, () => 'a')])
    refuses(parseSeedJobRequest, { image: 'debian', on }, /on takes 1 to 1024 names or peer ids/)
  for (const ttlMs of [0, -1, 1.5, '24h', Infinity])
    refuses(parseSeedJobRequest, { image: 'debian', ttlMs }, /ttlMs is not a time in milliseconds/)
  refuses(parseCancelSeedRequest, {}, /needs a text for id/)
})

test('credentials are an object of texts with a name or a token; no error quotes them', () => {
  const image = { image: 'debian' }
  const parsers = [parseAuthorizedRequest, parseSeedRequest, parseSeedJobRequest]
  const auths = [
    {},
    { username: 'u', password: 'p' },
    { identityToken: 't' },
    { registryToken: 't' },
    { username: '', password: '', identityToken: 't' },
  ]
  for (const parse of parsers) for (const auth of auths) assert.deepEqual(parse({ ...image, auth }), { ...image, auth })
  const push = { image: 'local:disk', target: 'host.test/disk:1', auth: { username: 'u' } }
  assert.deepEqual(parsePushRequest(push), push)
  assert.deepEqual(parseMountRequest({ ...image, directory: '/mnt', auth: {} }).auth, {})
  const wrong: unknown[] = [
    'hunter2',
    ['hunter2'],
    null,
    7,
    { password: 'hunter2' },
    { username: 'hunter2', password: 7 },
    { username: 'u', secret: 'hunter2' },
    { username: 'hunter2'.repeat(4096) },
  ]
  for (const auth of wrong)
    for (const parse of parsers)
      assert.throws(
        () => parse({ ...image, auth }),
        (error) =>
          isP2pfsError(error, 'invalid') && error.message.startsWith('auth ') && !/hunter2/.test(inspect(error)),
      )
})

test('a body that is no JSON is not quoted: it may hold a password', () => {
  for (const text of ['{"auth": {"password": "hunter2', 'hunter2', '"hunter2"', '["hunter2"]'])
    assert.throws(
      () => parseBody(text),
      (error) => isP2pfsError(error, 'invalid') && !/hunter2/.test(inspect(error, { depth: 9 })),
    )
})

test('--as names the uses of a seed, and excludes a format', () => {
  const image = { image: 'debian' }
  assert.deepEqual(parseSeedRequest({ ...image, as: ['drive', 'tree'] }), { ...image, as: ['drive', 'tree'] })
  for (const as of [[], 'drive', ['disk'], [7]]) refuses(parseSeedRequest, { ...image, as }, /--as takes drive, tree/)
  refuses(parseSeedRequest, { ...image, as: ['tree'], format: 'ext4' }, /excludes --format/)
})
