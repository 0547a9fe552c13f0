import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { run, start, type CommandOutput, type RunOptions } from './process.ts'

/**
 * A network namespace. Programs enter it with `nsenter`, and share the mount namespace of the machine: mounts of a
 * host's daemon are visible from outside.
 */
export class Namespace {
  readonly name: string

  private constructor(name: string) {
    this.name = name
  }

  /** Makes the namespace and brings its loopback up. */
  static async create(name: string, { signal }: { signal?: AbortSignal } = {}): Promise<Namespace> {
    const namespace = new Namespace(name)
    await run('ip', ['netns', 'add', name], options(signal))
    await namespace.ip(['link', 'set', 'dev', 'lo', 'up'], { signal })
    return namespace
  }

  /** `ip` on the devices of this namespace. */
  async ip(args: readonly string[], { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Buffer> {
    return (await run('ip', ['-netns', this.name, ...args], options(signal))).stdout
  }

  /** `tc` on the devices of this namespace. */
  async tc(args: readonly string[], { signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    await run('tc', ['-netns', this.name, ...args], options(signal))
  }

  /** Runs a command inside, to its end; see {@link run}. */
  async run(command: string, args: readonly string[], runOptions: RunOptions = {}): Promise<CommandOutput> {
    return await run('nsenter', this.#enter(command, args), runOptions)
  }

  /** Starts a command inside that stays; see {@link start}. */
  async start(command: string, args: readonly string[], spawnOptions: SpawnOptions = {}): Promise<ChildProcess> {
    return await start('nsenter', this.#enter(command, args), spawnOptions)
  }

  #enter(command: string, args: readonly string[]): string[] {
    return [`--net=/run/netns/${this.name}`, '--', command, ...args]
  }
}

function options(signal: AbortSignal | undefined): RunOptions {
  return signal === undefined ? {} : { signal }
}
