import type { PlainAnswer, PlainAnswers } from '../control/plain-answers.ts'
import type { Metrics } from './metrics.ts'
import type { Readiness } from './readiness.ts'

const plainText = 'text/plain; charset=utf-8'
/** The text format of Prometheus. */
const metricsText = 'text/plain; version=0.0.4; charset=utf-8'

export interface ProbeAnswersParts {
  metrics: Pick<Metrics, 'text'>
  readiness: Pick<Readiness, 'reason'>
}

/**
 * `/metrics`; `/livez`, which any answer of the daemon is; and `/readyz`: 200 where it serves mounts and requests, else 503
 * with the reason.
 */
export class ProbeAnswers implements PlainAnswers {
  readonly #parts: ProbeAnswersParts

  constructor(parts: ProbeAnswersParts) {
    this.#parts = parts
  }

  async answer(path: string): Promise<PlainAnswer | undefined> {
    const { reason } = this.#parts.readiness
    switch (path) {
      case '/livez':
        return { status: 200, type: plainText, body: 'ok\n' }
      case '/readyz':
        return reason === undefined
          ? { status: 200, type: plainText, body: 'ok\n' }
          : { status: 503, type: plainText, body: `${reason}\n` }
      case '/metrics':
        return { status: 200, type: metricsText, body: await this.#parts.metrics.text() }
      default:
        return undefined
    }
  }
}
