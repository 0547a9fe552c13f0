import { parseGivenLimit, parseRateLimit } from '../base/byte-rate.ts'
import { text } from './option.ts'

/** Limits on this host's bandwidth. */
export const limitOptions = {
  uploadLimit: text(
    'RATE',
    'none',
    'what this host gives to peers in a second; p2pfs limits changes it while it runs',
    { check: parseGivenLimit },
  ),
  downloadLimit: text('RATE', 'none', 'the same, for chunks that it takes from peers', { check: parseRateLimit }),
  registryLimit: text('RATE', 'none', 'the same, for what it reads from registries', { check: parseRateLimit }),
  seedLimit: text('RATE', 'none', 'the same, for what seeds fetch to this host, from wherever it comes', {
    check: parseRateLimit,
  }),
} as const
