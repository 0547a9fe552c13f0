import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { text } from 'node:stream/consumers'
import type { LabHost } from '../hosts/lab-host.ts'
import type { StrangerCounts, StrangerOrders } from './stranger-orders.ts'

const program = fileURLToPath(new URL('./stranger-main.ts', import.meta.url))

/** A stranger on a host of the lab. He gives way to everybody else on this machine: a real one has his own. */
export class Stranger {
  readonly #process: ChildProcess
  readonly #counts: Promise<string>

  private constructor(process: ChildProcess) {
    this.#process = process
    this.#counts = text(process.stdout!)
  }

  static async start(host: LabHost, orders: StrangerOrders): Promise<Stranger> {
    const command = [process.execPath, '--disable-warning=ExperimentalWarning', program, JSON.stringify(orders)]
    return new Stranger(await host.start('nice', ['-n', '19', ...command], { stdio: ['pipe', 'pipe', 'inherit'] }))
  }

  /** Ends him. @returns what came of it */
  async stop(): Promise<StrangerCounts> {
    this.#process.stdin?.end()
    return JSON.parse(await this.#counts) as StrangerCounts
  }
}
