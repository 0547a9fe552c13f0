/** An answer that is no JSON of the control API: for Prometheus, for probes, for a browser. */
export interface PlainAnswer {
  /** HTTP. */
  status: number
  /** Content type. */
  type: string
  body: string | Uint8Array
}

/** Answers `GET` requests of some paths. */
export interface PlainAnswers {
  /** @returns undefined for other paths */
  answer: (path: string) => Promise<PlainAnswer | undefined>
}
