import type { Registry } from '../registry/registry.ts'
import type { ChaosHost, ChaosMount } from './chaos-host.ts'
import type { Journal } from './journal.ts'
import type { Outages } from './outages.ts'
import type { TrueImage } from './truth.ts'

/** Everything that actions act on. */
export interface World {
  hosts: ChaosHost[]
  registry: Registry
  images: TrueImage[]
  journal: Journal
  /** Times in which the registry could not be reached. */
  registryOutages: Outages
  /** Files with the truth of what is written into mounts. */
  writtenDirectory: string
  undo: Undo
}

/** The ends of faults: each comes after a while, or at the end of the run. */
export class Undo {
  readonly #pending = new Set<{ timer: NodeJS.Timeout; task: () => Promise<void> }>()
  readonly #running = new Set<Promise<void>>()

  after(ms: number, task: () => Promise<void>): void {
    const entry = {
      timer: setTimeout(() => {
        this.#pending.delete(entry)
        this.#start(task)
      }, ms),
      task,
    }
    this.#pending.add(entry)
  }

  /** Ends everything now. */
  async all(): Promise<void> {
    for (const { timer, task } of this.#pending) {
      clearTimeout(timer)
      this.#start(task)
    }
    this.#pending.clear()
    await Promise.all(this.#running)
  }

  #start(task: () => Promise<void>): void {
    const running = task().finally(() => this.#running.delete(running))
    this.#running.add(running)
  }
}

/** The read deadline of the daemons (ms). */
export const readDeadlineMs = 15_000
/** A request that fails this soon after a fault may have met it (ms). */
const aftermathMs = 3_000

/** Whether a fault explains that a request which began at `since` has failed. */
export function wasDisturbed(world: World, host: ChaosHost, since: number): boolean {
  return (
    host.isFull ||
    host.disturbedAt > since - aftermathMs ||
    host.outages.since(since - aftermathMs) > 0 ||
    world.registryOutages.since(since - aftermathMs) > 0
  )
}

/** Whether the registry was away for so long that a read which began at `since` may have failed. */
export function mayFail(world: World, since: number): boolean {
  return world.registryOutages.since(since - readDeadlineMs) > readDeadlineMs / 2
}

/** Names a mount for people. */
export function describeMount({ request, image, format }: ChaosMount): string {
  const { as = 'drive', writable, limitBytes, scratchBytes } = request
  const kind = [
    as,
    writable && 'writable',
    limitBytes !== undefined && 'limited',
    scratchBytes !== undefined && 'scratch',
  ]
  return `${image.name} ${format} ${kind.filter(Boolean).join(' ')} on ${request.directory}`
}
