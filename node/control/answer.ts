import type { ServerResponse } from 'node:http'
import type { Outcome, Problem, Progress } from './api.ts'
import type { PlainAnswer } from './plain-answers.ts'

/** Progress lines are sent at most this often (ms). */
const progressIntervalMs = 100

/**
 * Answers one request: by default with one JSON object and the status that belongs to it. A client that accepts
 * `application/x-ndjson` gets progress, and therefore a status before anything is known: 200 once the request is taken,
 * and the outcome in the last line.
 */
export class Answer {
  readonly #response: ServerResponse
  readonly #isStream: boolean
  #lastProgressMs = 0

  constructor(response: ServerResponse, accept: string | undefined) {
    this.#response = response
    this.#isStream = accept !== undefined && /\bapplication\/x-ndjson\b/i.test(accept)
  }

  /** Marks the begin of the operation. A client that reads progress is told at once. */
  begin(): void {
    if (!this.#isStream) return
    this.#response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    this.#response.flushHeaders()
  }

  progress(progress: Progress['progress']): void {
    // A client that does not read gets no more lines: none is kept for it.
    if (!this.#isStream || this.#response.writableNeedDrain) return
    const nowMs = performance.now()
    if (nowMs - this.#lastProgressMs < progressIntervalMs && progress.doneBytes < progress.totalBytes) return
    this.#lastProgressMs = nowMs
    this.#response.write(line({ progress }))
  }

  plain({ status, type, body }: PlainAnswer): void {
    this.#whole(status, type, body)
  }

  result(result: object): void {
    if (this.#response.headersSent) this.#response.end(line({ result } satisfies Outcome<object>))
    else this.#whole(200, 'application/json', line(result))
  }

  /** @param headers of an answer whose status is still to be said */
  failure(problem: Problem, headers: Record<string, string>): void {
    if (this.#response.headersSent) {
      this.#response.end(line({ error: problem } satisfies Outcome<object>))
      return
    }
    for (const [name, value] of Object.entries(headers)) this.#response.setHeader(name, value)
    this.#whole(problem.status, 'application/problem+json', line(problem))
  }

  /** Not by `writeHead`, after which Node does not say how long the answer is. */
  #whole(status: number, type: string, body: string | Uint8Array): void {
    this.#response.statusCode = status
    this.#response.setHeader('content-type', type)
    this.#response.end(body)
  }
}

export const line = (object: object): string => `${JSON.stringify(object)}\n`
