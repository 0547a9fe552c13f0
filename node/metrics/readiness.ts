/** Whether the daemon serves mounts and requests. */
export class Readiness {
  #reason: string | undefined = 'the daemon is starting'

  /** Why it does not; undefined where it does. */
  get reason(): string | undefined {
    return this.#reason
  }

  begin(): void {
    this.#reason = undefined
  }

  end(): void {
    this.#reason = 'the daemon is stopping; another may take over in a moment'
  }
}
