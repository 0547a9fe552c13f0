import { P2pfsError } from '../../protocol/errors.ts'
import { maxTextLength } from '../../protocol/messages/region.ts'

/** @throws invalid for a text that is too long to be told to peers */
export function checkTextLength(value: string): void {
  if (value.length > maxTextLength)
    throw new P2pfsError(
      'invalid',
      `${value.slice(0, 20)}... has ${value.length} characters; a name or region has at most ${maxTextLength}`,
    )
}

/** A multiaddr that TCP can reach. */
const addressPattern = /^\/(?:ip4|ip6|dns[46]?)\/[^/]+\/tcp\/(\d{1,5})(?:\/|$)/

/** @throws invalid */
export function checkAddress(item: string): void {
  if (Number(addressPattern.exec(item)?.[1] ?? Infinity) > 65_535)
    throw new P2pfsError(
      'invalid',
      `not an address of a peer: ${JSON.stringify(item.slice(0, 100))}; it is written as /ip4/10.0.0.1/tcp/4100`,
    )
}
