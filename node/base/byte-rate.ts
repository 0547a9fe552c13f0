import { P2pfsError } from '../../protocol/errors.ts'

/** Bytes a second in one of each unit. Decimal, as rates of links are; those with an i are powers of two. */
const units: Record<string, number> = {
  kbit: 1e3 / 8,
  Mbit: 1e6 / 8,
  Gbit: 1e9 / 8,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
}

/** Bytes a second of a rate such as `200Mbit` or `25MB`. @throws invalid */
export function parseByteRate(text: string): number {
  const [, number = '', unit = ''] = /^([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([kMG](?:bit|B)|[KMG]iB)$/.exec(text.trim()) ?? []
  const rate = Number(number) * (units[unit] ?? 0)
  if (!(rate > 0)) throw new P2pfsError('invalid', `${text} is no rate such as 200Mbit or 25MB a second`)
  return rate
}

/** As {@link parseByteRate}; undefined for `none`. @throws invalid */
export function parseRateLimit(text: string): number | undefined {
  return text === 'none' ? undefined : parseByteRate(text)
}

/**
 * The lowest limit on what is given to others (bytes a second): a chunk takes a second then. Below it those who ask take this host
 * for one that does not deliver, and get the chunk elsewhere, which costs more than it saves.
 */
const leastGiven = 2e6 / 8

/** As {@link parseRateLimit}, for what is given to others. @throws invalid also for a limit that is too low */
export function parseGivenLimit(text: string): number | undefined {
  const rate = parseRateLimit(text)
  if (rate !== undefined && rate < leastGiven)
    throw new P2pfsError(
      'invalid',
      `${text} is too little to give: a peer gives up a chunk that takes seconds; it takes 2Mbit or more, or none`,
    )
  return rate
}
