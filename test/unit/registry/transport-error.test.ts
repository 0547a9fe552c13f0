import assert from 'node:assert/strict'
import { test } from 'node:test'
import { transportError } from '../../../node/registry/transport-error.ts'

const url = new URL('https://host:5000/v2/')
const failure = (code: string, message = `${code} as Node says it`): Error =>
  Object.assign(new Error(message), { code })

test('a registry that speaks plain HTTP is said without the words of OpenSSL', () => {
  const cause = failure('ERR_SSL_WRONG_VERSION_NUMBER', '404D:error:0A00010B:SSL routines::wrong version number:tlsany')
  assert.equal(
    transportError(url, cause).message,
    'cannot reach host:5000: it does not speak TLS; if it speaks plain HTTP, name it to the daemon with --insecure-registry host:5000',
  )
})

test('a host name that does not exist is said as that', () => {
  assert.match(transportError(url, failure('ENOTFOUND')).message, /: no such host; check the name of the registry$/)
})

test('a name server that does not answer is not taken for a registry that is away', () => {
  const { code, message } = transportError(url, failure('EAI_AGAIN'))
  assert.equal(code, 'unavailable')
  assert.match(message, /: the name server of this host does not answer; look at \/etc\/resolv\.conf$/)
})
