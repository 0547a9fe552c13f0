import { isP2pfsError } from '../../protocol/errors.ts'
import { createRandom } from './random.ts'

export type Random = ReturnType<typeof createRandom>

/** Time of one loop (ms). */
const budgetMs = 700
/** Most time of a single try (ms). */
const tryMs = 10_000
const maxTries = 3000

/**
 * Runs `attempt` with one seed after the other until the time is up. P2PFS_FUZZ_SEED is the first seed, and
 * P2PFS_FUZZ_MS a longer time. An attempt must succeed, or throw a P2pfsError that says that the input is wrong.
 * @throws naming the seed
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
 * A copy with a bit flipped, a byte changed, a piece removed, doubled, inserted or set to one value, or the end cut
 * off.
 */
export function mutate(bytes: Buffer, random: Random): Buffer {
  if (bytes.length === 0) return bytes
  const changed = Buffer.from(bytes)
  const at = random.below(bytes.length)
  const end = Math.min(bytes.length, at + 1 + random.below(16))
  switch (random.below(7)) {
    case 0:
      changed[at]! ^= 1 << random.below(8)
      return changed
    case 1:
      changed[at] = random.below(256)
      return changed
    case 2:
      return changed.fill([0, 0xff, 0x7f, 0x80, 0x20][random.below(5)]!, at, end)
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)])
    case 4:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)])
    case 5:
      return Buffer.concat([bytes.subarray(0, at), random.bytes(end - at), bytes.subarray(at)])
    default:
      return changed.subarray(0, at)
  }
}
