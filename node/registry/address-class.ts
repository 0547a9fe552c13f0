import { BlockList, isIP } from 'node:net'

/**
 * Classes of addresses by where they lead, in the order in which they are looked up. `metadata`: the service of a cloud
 * that tells a machine its secrets. `private`: networks of an organisation or a provider. `reserved`: addresses that
 * are no host's.
 */
export const addressClasses = [
  'metadata',
  'loopback',
  'link-local',
  'private',
  'multicast',
  'unspecified',
  'reserved',
] as const

export type AddressClass = (typeof addressClasses)[number] | 'public'

/**
 * IANA's registries of special-purpose addresses, IPv4 and IPv6 (RFC 6890), and the metadata services of AWS, Azure,
 * Google, Oracle and Alibaba.
 */
const networks: Record<(typeof addressClasses)[number], { ipv4: readonly string[]; ipv6: readonly string[] }> = {
  metadata: {
    ipv4: ['169.254.169.254/32', '169.254.170.2/32', '168.63.129.16/32', '192.0.0.192/32', '100.100.100.200/32'],
    ipv6: ['fd00:ec2::/32', 'fd20:ce::254/128'],
  },
  loopback: { ipv4: ['127.0.0.0/8'], ipv6: ['::1/128'] },
  'link-local': { ipv4: ['169.254.0.0/16'], ipv6: ['fe80::/10'] },
  // RFC 1918; RFC 6598, shared by a provider's customers; RFC 4193; RFC 3879, deprecated and still routed by some.
  private: {
    ipv4: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10'],
    ipv6: ['fc00::/7', 'fec0::/10'],
  },
  multicast: { ipv4: ['224.0.0.0/4'], ipv6: ['ff00::/8'] },
  // Linux takes a connection to these for one to the machine itself.
  unspecified: { ipv4: ['0.0.0.0/8'], ipv6: ['::/128'] },
  reserved: {
    ipv4: [
      '192.0.0.0/24',
      '192.0.2.0/24',
      '192.88.99.0/24',
      '198.18.0.0/15',
      '198.51.100.0/24',
      '203.0.113.0/24',
      '240.0.0.0/4',
    ],
    // Discard, NAT64 of a network's own, Teredo and other protocol assignments, documentation, segment routing.
    ipv6: ['100::/64', '64:ff9b:1::/48', '2001::/23', '2001:db8::/32', '3fff::/20', '5f00::/16'],
  },
}

/** How IPv6 writes an IPv4 address: mapped, compatible, and by NAT64 (RFC 4291, section 2.5.5; RFC 6052). */
const embeddings = ['::ffff:', '::', '64:ff9b::'] as const

const lists = addressClasses.map((name) => [name, listOf(networks[name])] as const)

/** The class of an IP address, whatever form it is written in. @throws TypeError for what is not an address */
export function classOfAddress(address: string): AddressClass {
  const [plain = ''] = address.split('%')
  const family = isIP(plain)
  if (family === 0) throw new TypeError(`not an IP address: ${address}`)
  return lists.find(([, list]) => list.check(plain, family === 4 ? 'ipv4' : 'ipv6'))?.[0] ?? 'public'
}

function listOf({ ipv4, ipv6 }: { ipv4: readonly string[]; ipv6: readonly string[] }): BlockList {
  const list = new BlockList()
  for (const [network, bits] of ipv4.map(parse)) {
    list.addSubnet(network, bits, 'ipv4')
    for (const prefix of embeddings) list.addSubnet(`${prefix}${network}`, 96 + bits, 'ipv6')
    // 6to4: RFC 3056, section 2.
    const [a, b, c, d] = network.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))
    list.addSubnet(`2002:${a}${b}:${c}${d}::`, 16 + bits, 'ipv6')
  }
  for (const [network, bits] of ipv6.map(parse)) list.addSubnet(network, bits, 'ipv6')
  return list
}

function parse(network: string): [address: string, bits: number] {
  const [address = '', bits] = network.split('/')
  return [address, Number(bits)]
}
