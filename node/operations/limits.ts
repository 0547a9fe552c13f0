import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Bandwidth, LimitUse } from '../base/bandwidth.ts'
import { parseGivenLimit, parseRateLimit } from '../base/byte-rate.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { systemError } from '../base/system-error.ts'
import { limitNames, type LimitName, type LimitReport, type Limits, type LimitsRequest } from '../control/api.ts'
import { asUsage } from '../control/usage.ts'

/** How often what passes is looked at (ms), and how many looks the present rate is of. */
const sampleMs = 1_000
const samples = 5
/** The log says so often at most that reads are late because of a limit (ms). */
const warnMs = 60_000
/** Limits on what is given to others. */
const given: ReadonlySet<LimitName> = new Set<LimitName>(['upload', 'guest'])

export type LimitTexts = Record<LimitName, string>

export interface LimitsParts {
  bandwidths: Record<LimitName, Pick<Bandwidth, 'bytesPerSecond' | 'use'>>
  /** Keeps what `p2pfs limits` has changed, for the next daemon. */
  file: string
  log: Log
  clock?: Clock
}

type Uses = Record<LimitName, LimitUse>

/**
 * `p2pfs limits`: shows limits on bandwidth, and changes them while the daemon runs. The log says when one of them makes those wait
 * who read.
 */
export class LimitsOperation implements Disposable {
  readonly #parts: LimitsParts
  readonly #options: LimitTexts
  readonly #clock: Clock
  #changed: Partial<LimitTexts> = {}
  /** Bytes that had passed at the last looks, the oldest first. */
  readonly #looks: { atMs: number; uses: Uses }[] = []
  readonly #warned = new Map<LimitName, { atMs: number; use: LimitUse }>()
  #cancelLook: (() => void) | undefined

  /** @param options the limits of the daemon's options, as texts */
  constructor(parts: LimitsParts, options: LimitTexts) {
    this.#parts = parts
    this.#options = options
    this.#clock = parts.clock ?? systemClock
  }

  /** Sets the limits of the options, and those that were changed since and kept. */
  async start(): Promise<void> {
    const { file, log } = this.#parts
    try {
      this.#changed = parseKept(JSON.parse(await readFile(file, 'utf8')))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        log.warn('changed limits cannot be read; the limits of the options are used', { error, file })
    }
    this.#apply({ isStart: true })
    this.#look()
  }

  [Symbol.dispose](): void {
    this.#cancelLook?.()
  }

  /** @throws invalid for what is no rate, or too low; unavailable where the change cannot be kept: nothing is changed then */
  async run({ set = {}, reset = false }: LimitsRequest): Promise<Limits> {
    if (reset || Object.keys(set).length > 0) {
      const changed = asUsage(() => parseKept({ ...(reset ? {} : this.#changed), ...set }))
      await this.#keep(changed)
      this.#changed = changed
      this.#apply({ isStart: false })
    }
    return { limits: this.report() }
  }

  /** @param options at the start those of the options are set without a word */
  #apply({ isStart }: { isStart: boolean }): void {
    for (const name of limitNames) {
      const limit = parseLimit(name, this.#textOf(name))
      const bandwidth = this.#parts.bandwidths[name]
      if (bandwidth.bytesPerSecond === limit) continue
      bandwidth.bytesPerSecond = limit
      if (!isStart || this.#changed[name] !== undefined)
        this.#parts.log.info('limit on bandwidth set', { limit: name, rate: this.#textOf(name) })
    }
  }

  #textOf(name: LimitName): string {
    return this.#changed[name] ?? this.#options[name]
  }

  async #keep(changed: Partial<LimitTexts>): Promise<void> {
    const { file } = this.#parts
    try {
      if (Object.keys(changed).length === 0) return await rm(file, { force: true })
      const partial = `${file}.new`
      await writeFile(partial, `${JSON.stringify(changed)}\n`, { mode: 0o600 })
      await rename(partial, file)
    } catch (error) {
      throw systemError('cannot keep the limits', error)
    }
  }

  /** The limits, what passes, and what waits. */
  report(): LimitReport[] {
    const first = this.#looks[0]!
    const seconds = Math.max(sampleMs, this.#clock.now() - first.atMs) / 1000
    return limitNames.map((name) => {
      const { bytes, waiting, waits, urgentWaits, urgentWaitedMs } = this.#parts.bandwidths[name].use()
      return {
        name,
        rate: this.#textOf(name),
        isChanged: this.#changed[name] !== undefined,
        bytesPerSecond: Math.max(0, Math.round((bytes - first.uses[name].bytes) / seconds)),
        waiting,
        waits,
        urgentWaits,
        urgentWaitedMs: Math.round(urgentWaitedMs),
      }
    })
  }

  #look(): void {
    const { bandwidths } = this.#parts
    const uses = Object.fromEntries(limitNames.map((name) => [name, bandwidths[name].use()])) as Uses
    this.#looks.push({ atMs: this.#clock.now(), uses })
    if (this.#looks.length > samples) this.#looks.shift()
    for (const name of limitNames) this.#warn(name, uses[name])
    this.#cancelLook = this.#clock.after(sampleMs, () => this.#look())
  }

  #warn(name: LimitName, use: LimitUse): void {
    const last = this.#warned.get(name)
    const pieces = use.urgentWaits - (last?.use.urgentWaits ?? 0)
    if (pieces === 0 || (last !== undefined && this.#clock.now() - last.atMs < warnMs)) return
    const waitedMs = Math.round(use.urgentWaitedMs - (last?.use.urgentWaitedMs ?? 0))
    this.#warned.set(name, { atMs: this.#clock.now(), use })
    const fields = { limit: name, rate: this.#textOf(name), pieces, waitedMs }
    this.#parts.log.warn('a limit on bandwidth delays reads that somebody waits for', fields)
  }
}

/** @throws invalid for what is no rate, or lower than this limit may be */
export function parseLimit(name: LimitName, text: string): number | undefined {
  return given.has(name) ? parseGivenLimit(text) : parseRateLimit(text)
}

/** @throws invalid */
function parseKept(value: unknown): Partial<LimitTexts> {
  if (typeof value !== 'object' || value === null) throw new P2pfsError('invalid', 'limits are an object of rates')
  for (const [name, rate] of Object.entries(value)) {
    if (!limitNames.some((known) => known === name) || typeof rate !== 'string')
      throw new P2pfsError('invalid', `there is no limit ${name}; there are ${limitNames.join(', ')}`)
    parseLimit(name as LimitName, rate)
  }
  return value
}
