import type { Headers } from './http-messages.ts'

/** A challenge of WWW-Authenticate: RFC 9110, section 11.6.1. */
export interface Challenge {
  /** In lower case. */
  scheme: string
  parameters: ReadonlyMap<string, string>
}

export function parseChallenge(header: string): Challenge | undefined {
  const match = /^\s*([A-Za-z]+)\s*(.*)$/s.exec(header)
  if (match === null) return undefined
  const parameters = new Map<string, string>()
  for (const [, key = '', quoted, plain] of match[2]!.matchAll(
    /([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,\s]+))/g,
  )) {
    parameters.set(key.toLowerCase(), quoted?.replaceAll(/\\(.)/g, '$1') ?? plain ?? '')
  }
  return { scheme: match[1]!.toLowerCase(), parameters }
}

/** The challenge to answer: one whose scheme is known here, else the first. */
export function chooseChallenge(headers: Headers): Challenge | undefined {
  const challenges = [headers['www-authenticate']].flat().flatMap((header) => parseChallenge(header ?? '') ?? [])
  return challenges.find(({ scheme }) => scheme === 'bearer' || scheme === 'basic') ?? challenges[0]
}
