import assert from 'node:assert/strict'
import { test } from 'node:test'
import { classOfAddress } from '../../../node/registry/address-class.ts'

const examples: Record<string, readonly string[]> = {
  metadata: ['169.254.169.254', '169.254.170.2', '168.63.129.16', '100.100.100.200', 'fd00:ec2::254', 'fd20:ce::254'],
  loopback: ['127.0.0.1', '127.255.255.254', '::1', '0:0:0:0:0:0:0:1'],
  'link-local': ['169.254.0.1', '169.254.169.253', 'fe80::1', 'fe80::1%eth0', 'febf::1'],
  private: [
    '10.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '100.64.0.1',
    '100.127.255.255',
    'fc00::1',
    'fdff::1',
    'fec0::1',
  ],
  multicast: ['224.0.0.1', '239.255.255.255', 'ff02::1'],
  unspecified: ['0.0.0.0', '0.1.2.3', '::'],
  reserved: [
    '192.0.2.1',
    '198.18.0.1',
    '198.51.100.7',
    '203.0.113.9',
    '240.0.0.1',
    '255.255.255.255',
    '2001:db8::1',
    '2001::1',
    '100::1',
  ],
  public: [
    '8.8.8.8',
    '172.15.0.1',
    '172.32.0.1',
    '100.63.0.1',
    '100.128.0.1',
    '128.0.0.1',
    '223.255.255.255',
    '2606:4700::1',
    '2a00::1',
  ],
}

for (const [name, addresses] of Object.entries(examples)) {
  test(`the class of an address: ${name}`, () => {
    for (const address of addresses) assert.equal(classOfAddress(address), name, address)
  })
}

/** All ways in which IPv6 writes an IPv4 address. */
function embeddingsOf(address: string): string[] {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number)
  const [high, low] = [(a * 256 + b).toString(16), (c * 256 + d).toString(16)]
  return [
    `::ffff:${address}`,
    `::ffff:${high}:${low}`,
    `0:0:0:0:0:ffff:${high}:${low}`,
    `::${high}:${low}`,
    `64:ff9b::${high}:${low}`,
    `2002:${high}:${low}::1`,
  ]
}

test('an IPv4 address within an IPv6 address is of its own class, however it is written', () => {
  for (const [name, addresses] of Object.entries(examples)) {
    // ::0 and ::1 are addresses of their own.
    for (const address of addresses.filter((text) => text.includes('.')))
      for (const written of embeddingsOf(address)) assert.equal(classOfAddress(written), name, written)
  }
})

test('a name has no class', () => {
  assert.throws(() => classOfAddress('localhost'), TypeError)
})
