export interface ReadJob {
  reads: { file: string; truth: string; offset: number; length: number }[]
}

export interface ReadResult {
  /** How long each read took. */
  ms: number[]
  failures: string[]
  /** Reads whose bytes were not those of the truth. */
  wrong: number
}
