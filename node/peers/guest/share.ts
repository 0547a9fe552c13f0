import type { Bandwidth } from '../../base/bandwidth.ts'
import { pause, systemClock, type Clock } from '../../base/clock.ts'
import { Urgency } from '../../base/urgency.ts'
import type { ByteBudget } from '../byte-budget.ts'
import { limits } from '../limits.ts'

export interface GuestShareParts {
  /** Answers that members have not taken yet. */
  unsent: Pick<ByteBudget, 'usedBytes'>
  /** The most that all guests together get. */
  bandwidth: Pick<Bandwidth, 'take'>
  clock?: Clock
}

/** The share of guests in this host's link: as much as members leave, within a bandwidth. */
export class GuestShare {
  readonly #parts: GuestShareParts
  readonly #clock: Clock

  constructor(parts: GuestShareParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
  }

  /** Resolves when so many bytes may go to a guest. @throws the signal's reason */
  async take(bytes: number, { signal }: { signal: AbortSignal }): Promise<void> {
    const { unsent, bandwidth } = this.#parts
    const { yieldMs, yields } = limits.guests
    for (let i = 0; i < yields && unsent.usedBytes > 0; i++) {
      await pause(this.#clock, yieldMs, { signal })
      signal.throwIfAborted()
    }
    await bandwidth.take(bytes, { signal, urgency: new Urgency(false) })
  }
}
