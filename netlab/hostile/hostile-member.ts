import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import type { LabHost } from '../hosts/lab-host.ts'
import type { MemberCounts, MemberOrders } from './member-orders.ts'

const program = fileURLToPath(new URL('./member-main.ts', import.meta.url))

/** A bad member on a host of the lab. He gives way to everybody else on this machine: a real one has his own. */
export class HostileMember {
  readonly #process: ChildProcess

  private constructor(process: ChildProcess) {
    this.#process = process
  }

  /** Resolves when all his identities have tried to connect. */
  static async start(host: LabHost, orders: MemberOrders): Promise<HostileMember> {
    const command = [process.execPath, '--disable-warning=ExperimentalWarning', program, JSON.stringify(orders)]
    const child = await host.start('nice', ['-n', '19', ...command], { stdio: ['pipe', 'pipe', 'inherit'] })
    await once(child.stdout!, 'data')
    return new HostileMember(child)
  }

  /** Ends him. @returns what came of it */
  async stop(): Promise<MemberCounts> {
    const counts = text(this.#process.stdout!)
    this.#process.stdin?.end()
    return JSON.parse(await counts) as MemberCounts
  }
}
