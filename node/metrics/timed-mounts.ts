import { errorCodes, isP2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import { Histogram } from '../base/histogram.ts'
import type { MountRequest, MountResult } from '../control/api.ts'
import type { Operation, OperationOptions } from '../control/operations.ts'
import { origins, type Origin } from '../model/image.ts'

/** Upper bounds (s): from a mount of what is here, which takes milliseconds, to an import of a large image. */
const bounds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600] as const

/** `p2pfs mount`, timed. */
export class TimedMounts implements Operation<MountRequest, MountResult> {
  readonly #mount: Operation<MountRequest, MountResult>
  readonly #now: () => number
  /** How long mounts took (s), by where the index came from. */
  readonly seconds = Object.fromEntries(origins.map((origin) => [origin, new Histogram(bounds)])) as Record<
    Origin,
    Histogram
  >
  /** How many failed. */
  readonly failures = Object.fromEntries(errorCodes.map((code) => [code, 0])) as Record<ErrorCode, number>

  constructor(
    { mount }: { mount: Operation<MountRequest, MountResult> },
    { now = () => performance.now() }: { now?: () => number } = {},
  ) {
    this.#mount = mount
    this.#now = now
  }

  async run(request: MountRequest, options: OperationOptions): Promise<MountResult> {
    const beginMs = this.#now()
    try {
      const result = await this.#mount.run(request, options)
      this.seconds[result.origin].observe((this.#now() - beginMs) / 1000)
      return result
    } catch (error) {
      this.failures[isP2pfsError(error) ? error.code : 'unavailable']++
      throw error
    }
  }
}
