import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isLoopbackHost, parseListenAddress } from '../../../node/base/listen-address.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'

test('an address to listen on is an IP address or localhost, and a port', () => {
  assert.deepEqual(parseListenAddress('127.0.0.1:9464'), { host: '127.0.0.1', port: 9464 })
  assert.deepEqual(parseListenAddress('0.0.0.0:0'), { host: '0.0.0.0', port: 0 })
  assert.deepEqual(parseListenAddress('[::1]:80'), { host: '::1', port: 80 })
  assert.deepEqual(parseListenAddress('localhost:1'), { host: 'localhost', port: 1 })
  for (const text of [
    '',
    '9464',
    ':9464',
    '127.0.0.1',
    '::1:80',
    '[127.0.0.1]:80',
    'example.org:80',
    '1.2.3.4:65536',
    '1.2.3:80',
  ])
    assert.throws(
      () => parseListenAddress(text),
      (error) => isP2pfsError(error, 'invalid'),
      text,
    )
})

test('only loopback addresses are for this host alone', () => {
  for (const host of ['localhost', '::1', '127.0.0.1', '127.1.2.3']) assert.ok(isLoopbackHost(host), host)
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.0.0.1.example.org']) assert.ok(!isLoopbackHost(host), host)
})
