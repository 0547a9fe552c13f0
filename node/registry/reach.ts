import { lookup as systemLookup, type LookupAddress } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import { classOfAddress, type AddressClass } from './address-class.ts'

/** The classes of addresses that the connections of a request may lead to. */
export type Reach = ReadonlySet<AddressClass>

/** The reach of a request to a registry that nobody on this host has named. */
export const publicReach: Reach = new Set<AddressClass>(['public'])

/** Servers whose classes are remembered; only those that the operator has named are. */
const maxServers = 1024

/** Equal for the same reach. */
export const reachKey = (reach: Reach): string => [...reach].toSorted().join(' ')

/**
 * Keeps the requests that this host sends for others within the networks that the registry is in: its token service,
 * redirects and whatever else it names lead to public addresses, or to addresses of the class that its own are of. The
 * address that is connected to decides, and not the name: a name may have several addresses, and others later.
 */
export class ReachGuard {
  readonly #lookup: LookupFunction
  readonly #classOf: (address: string) => AddressClass
  readonly #reaches = new BoundedMap<string, Reach>({ maxEntries: maxServers })

  /** @param parts `lookup`: as node:dns has it; `classOf`: the class of an IP address */
  constructor({
    lookup = systemLookup,
    classOf = classOfAddress,
  }: { lookup?: LookupFunction; classOf?: (address: string) => AddressClass } = {}) {
    this.#lookup = lookup
    this.#classOf = classOf
  }

  /**
   * The reach of requests to a server that the operator has named: public addresses, and the classes of its own. What
   * its name stands for at first counts, as long as the daemon runs: whoever answers for the name later does not widen
   * it. A metadata service is never reached.
   */
  async reachOf(hostname: string): Promise<Reach> {
    const known = this.#reaches.get(hostname)
    if (known !== undefined) return known
    const addresses = await this.#addressesOf(hostname)
    const reach = new Set<AddressClass>(['public', ...addresses.map(this.#classOf)])
    reach.delete('metadata')
    // A name that is not found, such as one that only a proxy knows, may be found later.
    if (addresses.length > 0) this.#reaches.set(hostname, reach)
    return reach
  }

  /** A lookup for `net.connect` that finds only addresses within the reach. It fails with denied where there is none. */
  lookupWithin(reach: Reach): LookupFunction {
    return (hostname, options, callback) => {
      this.#lookup(hostname, { ...options, all: true }, (error, found) => {
        if (error !== null) return callback(error, '')
        const addresses = found as unknown as LookupAddress[]
        const within = addresses.filter(({ address }) => reach.has(this.#classOf(address)))
        const [first] = within
        if (first === undefined) callback(outOfReach(hostname), '')
        else if (options.all === true) callback(null, within)
        else callback(null, first.address, first.family)
      })
    }
  }

  /** @throws denied for an address out of reach; names are for {@link lookupWithin} */
  checkAddress(hostname: string, reach: Reach): void {
    const address = addressIn(hostname)
    if (address !== undefined && !reach.has(this.#classOf(address))) throw outOfReach(hostname)
  }

  /**
   * Checks a request through a proxy. The proxy looks the name up itself, and its own rules decide; this host refuses
   * before that what it can see to be out of reach.
   * @throws denied for a name or an address that is out of reach, as this host sees it
   */
  async checkForProxy(hostname: string, reach: Reach): Promise<void> {
    const addresses = await this.#addressesOf(hostname)
    if (!addresses.every((address) => reach.has(this.#classOf(address)))) throw outOfReach(hostname)
  }

  /** None where the name is not found. */
  async #addressesOf(hostname: string): Promise<string[]> {
    const address = addressIn(hostname)
    if (address !== undefined) return [address]
    return await new Promise((resolve) =>
      this.#lookup(hostname, { all: true }, (error, found) =>
        resolve(error === null ? (found as unknown as LookupAddress[]).map(({ address }) => address) : []),
      ),
    )
  }
}

/** The address that a host of a URL is; undefined for a name. */
function addressIn(hostname: string): string | undefined {
  const text = hostname.replace(/^\[(.*)\]$/, '$1')
  return isIP(text) === 0 ? undefined : text
}

function outOfReach(hostname: string): P2pfsError {
  return new P2pfsError(
    'denied',
    `${hostname} is in a network that requests for others do not lead to: only those of a registry there would`,
    { host: hostname },
  )
}
