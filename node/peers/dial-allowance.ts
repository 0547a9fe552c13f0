import { BlockList, isIPv4, SocketAddress } from 'node:net'
import { multiaddr } from '@multiformats/multiaddr'
import { BoundedMap } from '../base/bounded-map.ts'
import { TokenBucket } from '../base/token-bucket.ts'
import { limits } from './limits.ts'

/** Classes of addresses that lead to this host itself, or to no single host of the region. */
const classes = {
  unspecified: ['0.0.0.0/8', '::/128'],
  loopback: ['127.0.0.0/8', '::1/128'],
  'link-local': ['169.254.0.0/16', 'fe80::/10'],
  multicast: ['224.0.0.0/4', '240.0.0.0/4', 'ff00::/8'],
} as const
type AddressClass = keyof typeof classes

const lists = Object.entries(classes).map(([name, ranges]) => {
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', prefix] = range.split('/')
    list.addSubnet(address, Number(prefix), address.includes(':') ? 'ipv6' : 'ipv4')
  }
  return { name: name as AddressClass, list }
})

/** The IP address and port of a multiaddr. */
interface Endpoint {
  /** In its one normal form. */
  ip: string
  port: string
}

/**
 * How far this host dials addresses that peers tell. Each peer can have a few dials fail in a minute, all peers together
 * can, and each endpoint and each address is dialled seldom, whoever names it. So peers cannot use this host to flood or
 * scan others. Addresses of this host itself, of a link or of a group are not dialled, unless this host listens at one of
 * that class.
 */
export class DialAllowance {
  readonly #now: () => number
  /** Classes that are dialled although peers tell them. */
  readonly #ownClasses: ReadonlySet<AddressClass | undefined>
  readonly #endpoints = new BoundedMap<string, TokenBucket>({ maxEntries: limits.dials.remembered })
  readonly #addresses = new BoundedMap<string, TokenBucket>({ maxEntries: limits.dials.remembered })
  readonly #tellers = new BoundedMap<string, TokenBucket>({ maxEntries: limits.dials.remembered })
  readonly #all: TokenBucket

  /** @param options `listen`: multiaddrs at which this host listens, as the operator gave them */
  constructor({ now }: { now: () => number }, { listen }: { listen: readonly string[] }) {
    this.#now = now
    this.#all = this.#bucket(limits.dials.inAll)
    const own = listen.map((address) => endpointOf(address)).map((endpoint) => endpoint && classOf(endpoint.ip))
    // A host that listens on all addresses has not said that members are at addresses of all classes.
    this.#ownClasses = new Set([undefined, ...own.filter((name) => name !== 'unspecified')])
  }

  /** Whether an address that a peer tells is one that this host dials at all. */
  isDiallable(address: string): boolean {
    const endpoint = endpointOf(address)
    return endpoint !== undefined && this.#ownClasses.has(classOf(endpoint.ip))
  }

  /**
   * Takes what dialling some addresses costs, which `teller` named.
   * @param options `isProven`: a dial of what this teller named has led to who was named
   * @returns the addresses to dial now, without peer ids, and what to call at the end; undefined where none may be
   *   dialled yet
   */
  take(
    teller: string,
    addresses: readonly string[],
    { isProven }: { isProven: boolean },
  ): { addresses: string[]; end: (isConnected: boolean) => void } | undefined {
    const told = bucketOf(this.#tellers, teller, () => this.#bucket(limits.dials.perTeller))
    if (!told.tryTake()) return undefined
    if (!isProven && !this.#all.tryTake()) {
      told.giveBack()
      return undefined
    }
    const end = (isConnected: boolean): void => {
      if (!isConnected) return
      told.giveBack()
      if (!isProven) this.#all.giveBack()
    }
    const allowed = addresses
      .map((address) => endpointOf(address))
      .filter((endpoint) => endpoint !== undefined)
      .filter((endpoint) => this.#takeEndpoint(endpoint))
      .map(({ ip, port }) => `/${isIPv4(ip) ? 'ip4' : 'ip6'}/${ip}/tcp/${port}`)
    if (allowed.length > 0) return { addresses: allowed, end }
    end(true)
    return undefined
  }

  #takeEndpoint({ ip, port }: Endpoint): boolean {
    const ofAddress = bucketOf(this.#addresses, ip, () => this.#bucket(limits.dials.perAddress))
    if (!ofAddress.tryTake()) return false
    const ofEndpoint = bucketOf(this.#endpoints, `${ip} ${port}`, () => this.#bucket(limits.dials.perEndpoint))
    if (ofEndpoint.tryTake()) return true
    ofAddress.giveBack()
    return false
  }

  #bucket({ perMinute, burst }: { perMinute: number; burst: number }): TokenBucket {
    return new TokenBucket({ perSecond: perMinute / 60, burst, now: this.#now })
  }
}

function bucketOf(buckets: BoundedMap<string, TokenBucket>, key: string, make: () => TokenBucket): TokenBucket {
  const bucket = buckets.get(key) ?? make()
  buckets.set(key, bucket)
  return bucket
}

/** The endpoint of a multiaddr; undefined for text that is no multiaddr, or not plain TCP to an IP address. */
function endpointOf(address: string): Endpoint | undefined {
  try {
    const [host, tcp, ...more] = multiaddr(address).getComponents()
    if (host === undefined || tcp?.name !== 'tcp' || tcp.value === undefined) return undefined
    if ((host.name !== 'ip4' && host.name !== 'ip6') || host.value === undefined) return undefined
    if (more.length > 1 || (more.length === 1 && more[0]!.name !== 'p2p')) return undefined
    const { address: ip } = new SocketAddress({ address: host.value, family: host.name === 'ip4' ? 'ipv4' : 'ipv6' })
    return { ip: /^::ffff:([0-9.]+)$/.exec(ip)?.[1] ?? ip, port: tcp.value }
  } catch {
    return undefined
  }
}

function classOf(ip: string): AddressClass | undefined {
  return lists.find(({ list }) => list.check(ip, isIPv4(ip) ? 'ipv4' : 'ipv6'))?.name
}
