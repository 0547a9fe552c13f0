import assert from 'node:assert/strict'
import { test } from 'node:test'
import { proxyFor } from '../../../node/registry/proxies.ts'

test('NO_PROXY has hosts with their subdomains, ports, addresses, networks, and all', () => {
  const cases: [string, string, boolean][] = [
    ['https://a.example', '', true],
    ['https://a.example', '*', false],
    ['https://a.example', 'b.example, a.example', false],
    ['https://x.a.example', 'a.example', false],
    ['https://xa.example', 'a.example', true],
    ['https://x.a.example', '.a.example', false],
    ['https://x.a.example', '*.a.example', false],
    ['https://a.example', 'A.EXAMPLE', false],
    ['https://a.example', 'a.example:443', false],
    ['https://a.example:5000', 'a.example:443', true],
    ['https://a.example:5000', 'a.example', false],
    ['https://10.1.2.3', '10.0.0.0/8', false],
    ['https://11.1.2.3', '10.0.0.0/8', true],
    ['https://10.1.2.3', '10.1.2.3', false],
    ['https://[fd00::1]:5000', 'fd00::/8', false],
    ['https://[fd00::1]:5000', 'fd00::1', false],
    ['https://[fd00::1]:5000', '[fd00::1]:443', true],
    ['https://10.1.2.3', '10.0.0.0/99', true],
    ['https://localhost:5000', '', false],
    ['https://127.0.0.2', '', false],
    ['https://[::1]:5000', '', false],
  ]
  for (const [url, noProxy, proxied] of cases) {
    assert.equal(
      proxyFor(new URL(url), { HTTPS_PROXY: 'proxy.example:3128', NO_PROXY: noProxy }),
      proxied ? 'http://proxy.example:3128' : undefined,
      `${url} with ${noProxy}`,
    )
  }
  assert.equal(
    proxyFor(new URL('https://a.example'), { HTTP_PROXY: 'http://p' }),
    undefined,
    'that of HTTP is for HTTP',
  )
  assert.equal(proxyFor(new URL('http://a.example'), { http_proxy: 'http://p', HTTP_PROXY: 'http://q' }), 'http://p')
})
