/** Something that must not happen. */
export interface Finding {
  kind:
    | 'wrong-bytes'
    | 'read-failed'
    | 'read-hangs'
    | 'operation-failed'
    | 'operation-hangs'
    | 'mount-lost'
    | 'mount-twice'
    | 'write-lost'
    | 'daemon-gone'
    | 'left-over'
  host: string
  detail: string
  atSeconds: number
  /** The same in the time of the daemons' logs. */
  at: string
  /** The last actions before it. */
  actions: string[]
}

/** Actions that a finding comes with. */
const quotedActions = 25
/** Findings of one kind on one subject that are told. */
const maxOfSubject = 2
/** More findings than this say nothing new. */
export const maxFindings = 40

/** The log of a run: its actions, and what was found. */
export class Journal {
  readonly findings: Finding[] = []
  readonly #startedAt = performance.now()
  readonly #actions: string[] = []
  readonly #tell: (line: string) => void
  readonly #told = new Map<string, number>()
  #dropped = 0

  /** @param tell receives each action as a line for people, each finding as a line of JSON */
  constructor(tell: (line: string) => void) {
    this.#tell = tell
  }

  action(host: string, text: string): void {
    const line = `${this.#seconds().toFixed(2).padStart(7)} ${host}: ${text}`
    this.#actions.push(line)
    if (this.#actions.length > quotedActions) this.#actions.shift()
    this.#tell(line)
  }

  /** @param subject findings about one subject are told twice at most; each detail is one by default */
  found(kind: Finding['kind'], host: string, detail: string, subject = detail): void {
    const key = `${kind} ${host} ${subject}`
    const told = (this.#told.get(key) ?? 0) + 1
    this.#told.set(key, told)
    if (told > maxOfSubject || this.findings.length >= maxFindings) {
      this.#dropped++
      return
    }
    const atSeconds = Number(this.#seconds().toFixed(2))
    const finding = { kind, host, detail, atSeconds, at: new Date().toISOString(), actions: [...this.#actions] }
    this.findings.push(finding)
    this.#tell(JSON.stringify({ finding }))
  }

  /** Findings that were not told. */
  get dropped(): number {
    return this.#dropped
  }

  #seconds(): number {
    return (performance.now() - this.#startedAt) / 1000
  }
}
