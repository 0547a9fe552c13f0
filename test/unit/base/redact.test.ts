import assert from 'node:assert/strict'
import { test } from 'node:test'
import { redact, redactValue } from '../../../node/base/redact.ts'

const jwt = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzM2NyM3QifQ.s3cr3t_signature'

for (const [where, text] of Object.entries({
  'a URL': 'https://user:s3cr3t@host/v2/',
  'a URL with a token alone': 'https://s3cr3t@host/v2/',
  'a proxy in an environment': 'HTTPS_PROXY=http://me:s3cr3t@proxy:3128',
  'a bearer header': 'authorization: Bearer s3cr3tAAAA',
  'a basic header': 'Authorization: Basic czNjcjN0OnMzY3IzdA== s3cr3t',
  'a header without a scheme': 'Authorization: s3cr3tAAAA',
  'a cookie': 'Cookie: id=s3cr3t; other=s3cr3t',
  JSON: '{"password":"s3cr3t","user":"me"}',
  'JSON with spaces and an escape': '{"identitytoken" : "s3cr3t\\"s3cr3t"}',
  'JSON in JSON': String.raw`{"message":"{\"access_token\":\"s3cr3t\"}"}`,
  'JSON of docker': '{"auths":{"host":{"auth":"s3cr3t"}}}',
  'a query': 'GET /token?service=x&access_token=s3cr3t&scope=pull',
  'an environment': 'REGISTRY_PASSWORD="s3cr3t s3cr3t"',
  'a token of the web': `seen ${jwt} there`,
  'a token of GitHub': 'ghp_s3cr3ts3cr3ts3cr3t',
  'a region key': 'p2pfs-region-key-1:s3cr3tAAAA_-AAAA',
  'a private key': '-----BEGIN EC PRIVATE KEY-----\ns3cr3t\n-----END EC PRIVATE KEY-----',
  'a private key that is cut': '-----BEGIN PRIVATE KEY-----\ns3cr3t',
}))
  test(`a secret in ${where} is taken out`, () => {
    const clean = redact(text)
    assert.ok(!/s3cr3t|czNjcjN0|eyJzdWIi/.test(clean), clean)
    assert.match(clean, /\[redacted\]/)
  })

test('what is no secret stays', () => {
  for (const text of [
    '{"reference":"host:5000/team/app:v1","digest":"sha256:0123","peer":"12D3KooW"}',
    'cannot reach https://host:5000/v2/: no such host',
    '{"level":"info","message":"image mounted","directory":"/run/vm1"}',
    'p2pfs_read_wait_seconds_bucket{source="peer",le="0.1"} 4',
  ])
    assert.equal(redact(text), text)
})

test('JSON is still JSON', () => {
  const line = JSON.stringify({ a: { token: 'x"y', password: '' }, url: 'https://u:p@h/', n: 1 })
  assert.deepEqual(JSON.parse(redact(line)), {
    a: { token: '[redacted]', password: '[redacted]' },
    url: 'https://[redacted]@h/',
    n: 1,
  })
})

test('a value loses what is named as a secret, at any depth, and keeps the rest', () => {
  assert.deepEqual(
    redactValue({ registryMirror: ['docker.io=https://u:s3cr3t@m'], deep: [{ apiKey: 's3cr3t', port: 1, is: true }] }),
    {
      registryMirror: ['docker.io=https://[redacted]@m'],
      deep: [{ apiKey: '[redacted]', port: 1, is: true }],
    },
  )
})
