import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { LabHost } from '../hosts/lab-host.ts'

/** The module that a daemon loads; see there. */
const monitor = pathToFileURL(join(import.meta.dirname, 'loop-delay-monitor.ts'))
const nanosecondsPerMillisecond = 1e6
/** The monitor writes ten times a second. */
const writeMs = 250

/** How long the main thread of a daemon does not get to its events: what everybody waits for who asks it for something. */
export class LoopDelay {
  readonly #file: string

  constructor(host: LabHost) {
    this.#file = join(host.directory, 'loop-delay.json')
  }

  /** For the daemon's environment. */
  get env(): NodeJS.ProcessEnv {
    return { NODE_OPTIONS: `--import=${monitor.href}`, P2PFS_LOOP_DELAY_FILE: this.#file }
  }

  /** Forgets the delays that were measured so far. */
  async reset(): Promise<void> {
    await rm(this.#file, { force: true })
    await pause()
  }

  /** The delay that one event in a hundred has (ms) since the last reset. */
  async percentile99(): Promise<number> {
    await pause()
    const { p99 } = JSON.parse(await readFile(this.#file, 'utf8')) as { p99: number }
    return p99 / nanosecondsPerMillisecond
  }
}

async function pause(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, writeMs))
}
