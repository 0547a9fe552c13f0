import type { ChildProcess } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LabHost } from './lab-host.ts'
import { exited, lastLines } from './process.ts'

export interface Drive {
  path: string
  readOnly: boolean
}

export interface VirtualMachineOptions {
  /** A Linux kernel with drivers for NVMe and the first serial port, bzImage. */
  kernel: string
  /** They become `/dev/nvme0n1`, `/dev/nvme0n2` and so on, in this order. The first is the root. */
  drives: readonly Drive[]
  /** Arguments besides those for the root, the console and panics. */
  kernelArguments?: readonly string[]
  memoryMebibytes?: number
}

export interface ConsoleLine {
  text: string
  /** The time since the start of the machine. */
  atMs: number
}

/** Without an instruction for random numbers, a guest waits seconds until it has collected randomness. */
const cpu = 'qemu64,+rdrand'
/** A guest that prints more lines than this is in a loop. */
const maxConsoleLines = 10_000
/** The time that a machine may take to write its drives out when it is to end. */
const stopTimeoutMs = 5000
/** The trace of a panic takes fifty lines, and its reason stands above. */
const quotedLines = 80

/**
 * A virtual machine in QEMU, without KVM, so that it runs wherever tests run. It powers off instead of rebooting, also
 * in a panic.
 */
export class VirtualMachine implements AsyncDisposable {
  readonly #process: ChildProcess
  readonly #lines: ConsoleLine[] = []
  /** `change`: another line, or the end of the machine. */
  readonly #events = new EventEmitter()
  #ended = false

  private constructor(process: ChildProcess) {
    this.#process = process
    const startedAt = performance.now()
    const add = (text: string): void => {
      if (this.#lines.length >= maxConsoleLines) process.kill('SIGKILL')
      else this.#lines.push({ text, atMs: performance.now() - startedAt })
      this.#events.emit('change')
    }
    for (const input of [process.stdout, process.stderr] as Readable[])
      createInterface({ input, crlfDelay: Infinity }).on('line', add)
    process.once('close', () => {
      this.#ended = true
      this.#events.emit('change')
    })
  }

  /**
   * Starts the machine on a host of the lab. It ends with the host.
   *
   * @throws unsupported without QEMU
   */
  static async start(host: Pick<LabHost, 'start'>, options: VirtualMachineOptions): Promise<VirtualMachine> {
    const { kernel, drives, kernelArguments = [], memoryMebibytes = 512 } = options
    // One controller for all: the kernel looks for controllers in parallel, and numbers them as they answer.
    const devices = drives.flatMap(({ path, readOnly }, i) => {
      const drive = `if=none,id=drive${i},format=raw,readonly=${readOnly ? 'on' : 'off'},file=${path.replaceAll(',', ',,')}`
      return ['-drive', drive, '-device', `nvme-ns,drive=drive${i},bus=nvme,nsid=${i + 1}`]
    })
    const append = [
      'root=/dev/nvme0n1',
      'ro',
      'rootwait',
      'console=ttyS0',
      'panic=-1',
      'quiet',
      'mitigations=off',
      ...kernelArguments,
    ]
    const hardware = [
      '-nodefaults',
      '-accel',
      'tcg',
      '-cpu',
      cpu,
      '-m',
      `${memoryMebibytes}M`,
      '-device',
      'nvme,id=nvme,serial=p2pfs',
    ]
    const serial = ['-display', 'none', '-serial', 'stdio', '-no-reboot']
    const boot = ['-kernel', kernel, '-append', append.join(' ')]
    const args = [...hardware, ...devices, ...serial, ...boot]
    const child = await host.start('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] })
    return new VirtualMachine(child)
  }

  /** The lines of the console so far. */
  get console(): string {
    return this.#lines.map(({ text }) => text).join('\n')
  }

  /**
   * Waits for a line of the console. Earlier lines count too.
   *
   * @throws timeout; closed if the machine ends without it; both with the end of the console
   */
  async whenLine(pattern: RegExp, options: { timeoutMs: number; signal?: AbortSignal }): Promise<ConsoleLine> {
    let seen = 0
    return await this.#when(`the console shows ${pattern}`, options, () => {
      for (const line of this.#lines.slice(seen)) if (pattern.test(line.text)) return line
      seen = this.#lines.length
      return undefined
    })
  }

  /** Waits for the machine to power itself off. @throws timeout, with the end of the console */
  async whenOff(options: { timeoutMs: number; signal?: AbortSignal }): Promise<void> {
    await this.#when('the machine is off', options, () => (this.#ended ? true : undefined))
  }

  /** Cuts the power after drives are written out; idempotent. */
  async powerOff(): Promise<void> {
    this.#process.kill('SIGTERM')
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), stopTimeoutMs)
    await exited(this.#process)
    clearTimeout(timer)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.powerOff()
  }

  async #when<T>(
    what: string,
    options: { timeoutMs: number; signal?: AbortSignal },
    probe: () => T | undefined,
  ): Promise<T> {
    const { timeoutMs, signal } = options
    const deadline = AbortSignal.timeout(timeoutMs)
    for (;;) {
      signal?.throwIfAborted()
      const answer = probe()
      if (answer !== undefined) return answer
      if (this.#ended) throw this.#error('closed', `the machine ended before ${what}`)
      if (deadline.aborted) throw this.#error('timeout', `${what}: not within ${timeoutMs} ms`)
      // An abort is seen above.
      await once(this.#events, 'change', { signal: AbortSignal.any([deadline, ...(signal ? [signal] : [])]) }).catch(
        () => undefined,
      )
    }
  }

  #error(code: 'closed' | 'timeout', message: string): P2pfsError {
    return new P2pfsError(code, `${message}; its console ends with\n${lastLines(this.console, quotedLines)}`)
  }
}
