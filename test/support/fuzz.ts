import { isP2pfsError } from '../../protocol/errors.ts'
import { createRandom } from './random.ts'

export type Random = ReturnType<typeof createRandom>

/** Limits of one loop, and of a single try. */
const budgetMs = 2500
const tryMs = 10_000
const maxTries = 3000

/**
 * Runs `attempt` with one seed after the other until the time is up. P2PFS_FUZZ_SEED sets the first seed, P2PFS_FUZZ_MS
 * the time (ms). An attempt must succeed, or throw a P2pfsError that says that the input is wrong.
 * @throws an error that names the seed
 */
export async function runFuzz(attempt: (random: Random) => Promise<void>): Promise<void> {
  const first = Number(process.env['P2PFS_FUZZ_SEED'] ?? 1)
  const ms = Number(process.env['P2PFS_FUZZ_MS'] ?? budgetMs)
  const end = performance.now() + ms
  for (
    let seed = first;
    (seed < first + maxTries || ms > budgetMs) && (seed === first || performance.now() < end);
    seed++
  ) {
    const began = performance.now()
    try {
      await attempt(createRandom(seed))
    } catch (cause) {
      if (!isP2pfsError(cause, 'invalid', 'unsupported', 'missing'))
        throw new Error(`seed ${seed}: ${String(cause)}`, { cause })
    }
    if (performance.now() - began > tryMs)
      throw new Error(`seed ${seed}: took ${Math.round(performance.now() - began)} ms`)
  }
}

/**
 * A copy with a bit flipped, a byte changed, a piece taken out, doubled, added or set to one value, or the end cut off.
 */
export function mutate(bytes: Buffer, random: Random): Buffer {
  if (bytes.length === 0) return bytes
  const changed = Buffer.from(bytes)
  const start = random.below(bytes.length)
  const end = Math.min(bytes.length, start + 1 + random.below(16))
  switch (random.below(7)) {
    case 0:
      changed[start]! ^= 1 << random.below(8)
      return changed
    case 1:
      changed[start] = random.below(256)
      return changed
    case 2:
      return changed.fill([0, 0xff, 0x7f, 0x80, 0x20][random.below(5)]!, start, end)
    case 3:
      return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)])
    case 4:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(start)])
    case 5:
      return Buffer.concat([bytes.subarray(0, start), random.bytes(end - start), bytes.subarray(start)])
    default:
      return changed.subarray(0, start)
  }
}
