import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { setTimeout as sleepFor } from 'node:timers/promises'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Bandwidth } from '../base/bandwidth.ts'
import { parseRateLimit } from '../base/byte-rate.ts'
import type { Log } from '../base/log.ts'
import { systemError } from '../base/system-error.ts'
import { limitNames, type LimitName, type Limits, type LimitsRequest } from '../control/api.ts'

/** How long bytes are counted for the present rate (ms). */
const sampleMs = 1_000

export type LimitTexts = Record<LimitName, string>

export interface LimitsParts {
  bandwidths: Record<LimitName, Pick<Bandwidth, 'bytesPerSecond' | 'bytes' | 'waits'>>
  /** Keeps what `p2pfs limits` has changed, for the next daemon. */
  file: string
  log: Log
  sleep?: (ms: number, options: { signal: AbortSignal }) => Promise<void>
}

/** `p2pfs limits`: shows limits on bandwidth, and changes them while the daemon runs. */
export class LimitsOperation {
  readonly #parts: LimitsParts
  readonly #options: LimitTexts
  #changed: Partial<LimitTexts> = {}

  /** @param options the limits of the daemon's options, as texts */
  constructor(parts: LimitsParts, options: LimitTexts) {
    this.#parts = parts
    this.#options = options
  }

  /** Sets the limits of the options, and those that were changed since and kept. */
  async start(): Promise<void> {
    const { file, log } = this.#parts
    try {
      this.#changed = parseKept(JSON.parse(await readFile(file, 'utf8')))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        log.warn('limits that were changed cannot be read; those of the options hold', { error, file })
    }
    this.#apply()
  }

  /** @throws invalid for what is no rate; unavailable where the change cannot be kept: nothing is changed then */
  async run({ set = {}, reset = false }: LimitsRequest, { signal }: { signal: AbortSignal }): Promise<Limits> {
    if (reset || Object.keys(set).length > 0) {
      const changed = parseKept({ ...(reset ? {} : this.#changed), ...set })
      await this.#keep(changed)
      this.#changed = changed
      this.#apply()
    }
    return await this.#describe(signal)
  }

  #apply(): void {
    for (const name of limitNames) {
      const limit = parseRateLimit(this.#textOf(name))
      const bandwidth = this.#parts.bandwidths[name]
      if (bandwidth.bytesPerSecond === limit) continue
      bandwidth.bytesPerSecond = limit
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

  async #describe(signal: AbortSignal): Promise<Limits> {
    const { bandwidths, sleep = async (ms, options) => await sleepFor(ms, undefined, options) } = this.#parts
    const before = limitNames.map((name) => bandwidths[name].bytes)
    const startedAtMs = performance.now()
    await sleep(sampleMs, { signal })
    const seconds = Math.max(sampleMs, performance.now() - startedAtMs) / 1000
    return {
      limits: limitNames.map((name, i) => ({
        name,
        rate: this.#textOf(name),
        isChanged: this.#changed[name] !== undefined,
        bytesPerSecond: Math.round((bandwidths[name].bytes - before[i]!) / seconds),
        waits: bandwidths[name].waits,
      })),
    }
  }
}

/** @throws invalid */
function parseKept(value: unknown): Partial<LimitTexts> {
  if (typeof value !== 'object' || value === null) throw new P2pfsError('invalid', 'limits are an object of rates')
  for (const [name, rate] of Object.entries(value)) {
    if (!limitNames.some((known) => known === name) || typeof rate !== 'string')
      throw new P2pfsError('invalid', `there is no limit ${name}; there are ${limitNames.join(', ')}`)
    parseRateLimit(rate)
  }
  return value
}
