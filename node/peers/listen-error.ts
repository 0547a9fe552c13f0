import { P2pfsError } from '../../protocol/errors.ts'
import { mayPass } from '../base/system-error.ts'

/** libp2p's line about one address, below its advice to programmers: `  /ip4/...: Error: listen EADDRINUSE: ...`. */
const addressLine = /^\s+(\/\S+): (?:\w*Error: )?(.+)$/gm

/**
 * The error for addresses that cannot be listened on, in terms of what to do: without libp2p's stacks.
 * @returns `unavailable` if it may pass, as when a port is in use; otherwise `invalid`
 */
export function listenError(listen: readonly string[], cause: unknown): P2pfsError {
  const text = cause instanceof Error ? cause.message : String(cause)
  const named = [...text.matchAll(addressLine)].map(([, address, why]) => `${address!}: ${explain(address!, why!)}`)
  const what = named.length > 0 ? named.join('; ') : `${listen.join(', ')}: ${explain(listen[0] ?? '', text)}`
  return new P2pfsError(mayPass(cause) ? 'unavailable' : 'invalid', `cannot listen on ${what}`)
}

function explain(address: string, why: string): string {
  const port = /\/tcp\/(\d+)/.exec(address)?.[1] ?? ''
  if (why.includes('EADDRINUSE'))
    return `the port is in use: see by whom with ss -ltnp sport = :${port}, and end that, or choose another --listen`
  if (why.includes('EADDRNOTAVAIL')) return 'this host has no such address now; ip address shows those that it has'
  if (why.includes('EACCES')) return 'a port below 1024 is for root; choose another --listen'
  if (/ENOTFOUND|EAI_AGAIN/.test(why)) return 'there is no such host name; give an address, as /ip4/0.0.0.0/tcp/4100'
  if (why.startsWith('No transport')) return 'peers are reached over TCP alone, as /ip4/0.0.0.0/tcp/4100'
  return why.split('\n')[0]!
}
