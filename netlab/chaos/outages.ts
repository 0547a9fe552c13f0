/** A span of `performance.now()`; `to` is absent while it lasts. */
interface Span {
  from: number
  to?: number
}

/** Spans in which something was away. */
export class Outages {
  readonly #spans: Span[] = []

  /** @returns ends the outage; idempotent */
  begin(): () => void {
    const span: Span = { from: performance.now() }
    this.#spans.push(span)
    return () => void (span.to ??= performance.now())
  }

  get isNow(): boolean {
    return this.#spans.some(({ to }) => to === undefined)
  }

  /** The time since `from` in which something was away (ms). Spans that overlap count twice. */
  since(from: number): number {
    const now = performance.now()
    return this.#spans.reduce((sum, span) => sum + Math.max(0, (span.to ?? now) - Math.max(span.from, from)), 0)
  }
}
