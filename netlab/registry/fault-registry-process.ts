import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Fault } from '../../test/support/registry/faults.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import type { FaultRegistrySetup, FromFaultRegistry, ToFaultRegistry } from './fault-registry-messages.ts'
import type { LoggedRequest } from '../../test/support/registry/front.ts'

const program = fileURLToPath(new URL('./fault-registry-main.ts', import.meta.url))
const port = 5000

/** A `FaultRegistry` on a host of the lab, with plain HTTP. It ends with the network. */
export class FaultRegistryProcess {
  readonly host: LabHost
  /** `HOST:PORT`, for image references. */
  readonly authority: string
  readonly #process: ChildProcess
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(host: LabHost, process: ChildProcess) {
    this.host = host
    this.authority = `${host.address}:${port}`
    this.#process = process
  }

  static async start(
    host: LabHost,
    options: Omit<FaultRegistrySetup, 'address' | 'port'>,
  ): Promise<FaultRegistryProcess> {
    await using log = await open(join(host.directory, 'registry.log'), 'a')
    // Faults have regular expressions, which JSON cannot carry.
    const child = await host.start(process.execPath, ['--disable-warning=ExperimentalWarning', program], {
      stdio: ['ignore', log.fd, log.fd, 'ipc'],
      serialization: 'advanced',
    })
    const registry = new FaultRegistryProcess(host, child)
    await registry.#ask({ setUp: { ...options, address: host.address, port } })
    return registry
  }

  async addFault(fault: Fault): Promise<void> {
    await this.#ask({ addFault: fault })
  }

  async clearFaults(): Promise<void> {
    await this.#ask({ clearFaults: true })
  }

  /** All requests, in the order of their arrival. */
  async log(): Promise<LoggedRequest[]> {
    const answer = await this.#ask({ log: true })
    if (!('log' in answer))
      throw new P2pfsError('invalid', 'the registry of the lab gave the answer to another question')
    return answer.log
  }

  /** Asks one question at a time. */
  async #ask(message: ToFaultRegistry): Promise<FromFaultRegistry> {
    const asking = this.#turn.then(async () => {
      const abort = new AbortController()
      const ended = once(this.#process, 'exit', { signal: abort.signal }).then(() => {
        throw new P2pfsError('unavailable', 'the registry of the lab has ended')
      })
      const answer = once(this.#process, 'message', { signal: abort.signal })
      this.#process.send(message)
      try {
        return ((await Promise.race([answer, ended])) as [FromFaultRegistry])[0]
      } finally {
        answer.catch(() => undefined)
        ended.catch(() => undefined)
        abort.abort()
      }
    })
    this.#turn = asking.catch(() => undefined)
    return await asking
  }
}
