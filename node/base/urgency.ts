/** Whether somebody waits for a piece of work. Nobody may at first, and somebody later: it rises, and does not fall. */
export class Urgency {
  #urgent: boolean
  /** One for each stage that the work is in. */
  #listeners: (() => void)[] = []

  constructor(urgent: boolean) {
    this.#urgent = urgent
  }

  /** As urgent as the most urgent of them, from now on. */
  static ofAny(parts: readonly Urgency[]): Urgency {
    const urgency = new Urgency(false)
    for (const part of parts) urgency.follow(part)
    return urgency
  }

  /** Is urgent when the other one is, from now on. */
  follow(other: Urgency): void {
    if (other.isUrgent) this.raise()
    else other.onRaise(() => this.raise())
  }

  get isUrgent(): boolean {
    return this.#urgent
  }

  raise(): void {
    if (this.#urgent) return
    this.#urgent = true
    const listeners = this.#listeners
    this.#listeners = []
    for (const listener of listeners) listener()
  }

  /** Called when it becomes urgent; never where it is already. @returns takes the listener away */
  onRaise(listener: () => void): () => void {
    if (!this.#urgent) this.#listeners.push(listener)
    return () => void (this.#listeners = this.#listeners.filter((other) => other !== listener))
  }
}
