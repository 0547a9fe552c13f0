import type { Headers } from './http-messages.ts'

/** A challenge of WWW-Authenticate: RFC 9110, section 11.6.1. */
export interface Challenge {
  /** In lower case. */
  scheme: string
  parameters: ReadonlyMap<string, string>
}

/** A scheme, or a parameter of the scheme before it: `name`, `name=token`, `name="quoted"`. */
const part = /([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,\s"]*)))?/gs

/** All challenges of one header: a server that takes passwords and tokens offers both, in either order. */
function parseChallenges(header: string): Challenge[] {
  const found: { scheme: string; parameters: Map<string, string> }[] = []
  for (const [, name = '', quoted, plain] of header.matchAll(part)) {
    if (quoted === undefined && plain === undefined) found.push({ scheme: name.toLowerCase(), parameters: new Map() })
    else found.at(-1)?.parameters.set(name.toLowerCase(), quoted?.replaceAll(/\\(.)/gs, '$1') ?? plain ?? '')
  }
  return found
}

/**
 * The challenge to answer: by a token where one is offered, else by a password, else the first, which is not known
 * here.
 */
export function chooseChallenge(headers: Headers): Challenge | undefined {
  const challenges = [headers['www-authenticate']].flat().flatMap((header) => parseChallenges(header ?? ''))
  return (
    challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters.has('realm')) ??
    challenges.find(({ scheme }) => scheme === 'basic') ??
    challenges[0]
  )
}
