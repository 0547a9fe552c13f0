import { mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { createRandom } from '../../support/random.ts'
import { compareTrees, registryImages, registryTrees, writeTree } from './daemon-images.ts'
import type { DaemonUnderTest } from './daemon-under-test.ts'

/** Steps under way at once. */
const stepsAtOnce = 3
const formats = ['erofs', 'ext4'] as const

const interrupted = /the daemon (ended before it answered|was replaced meanwhile)/

export interface DaemonWorkOptions {
  daemon: DaemonUnderTest
  random: ReturnType<typeof createRandom>
  /** The directory for the trees that are imported. */
  directory: string
  registryReference: (image: number) => string
  /** The trees whose import was reported: `local:tree-N`. */
  imported: Set<number>
  /** The next tree that nobody has imported. */
  nextTree: () => number
  /** Whether daemons are killed meanwhile: then a request may end without an answer, but never a read. */
  mayEndRequests?: boolean
}

/** Has a daemon seed, import, mount and read at random, and compares every byte. */
export class DaemonWork {
  readonly #options: DaemonWorkOptions
  readonly findings: string[] = []
  #isEnding = false
  #running: Promise<unknown> = Promise.resolve()
  bytesRead = 0

  constructor(options: DaemonWorkOptions) {
    this.#options = options
  }

  start(): void {
    this.#running = Promise.all(Array.from({ length: stepsAtOnce }, async () => await this.#run()))
  }

  /** From now on nothing counts: neither a report nor an error. */
  end(): void {
    this.#isEnding = true
  }

  /** Resolves when the last steps have ended, after {@link end} and the end of the daemon. */
  async ended(): Promise<void> {
    await this.#running
  }

  async #run(): Promise<void> {
    while (!this.#isEnding) {
      const found: string[] = []
      await this.#step(found).catch((error: unknown) => {
        if (!this.#mayEnd(error as Error)) found.push(`${(error as Error).stack}`)
      })
      if (!this.#isEnding) this.findings.push(...found)
    }
  }

  /**
   * Whether the error is one that a user may get whose daemon was replaced. A mount(8) that the dead daemon had begun
   * may go on, and take the place from under the next, until the user tries again.
   */
  #mayEnd({ message }: Error): boolean {
    const { mayEndRequests = false } = this.#options
    return mayEndRequests && interrupted.test(message)
  }

  async #step(found: string[]): Promise<void> {
    const { daemon, random, registryReference, imported } = this.#options
    const chosen = random.below(100)
    const format = formats[random.below(formats.length)]!
    const image = random.below(registryImages)
    if (chosen < 30) await this.#import(format)
    else if (chosen < 55) await daemon.call('seed', { image: registryReference(image), format })
    else if (chosen < 75) found.push(...(await this.#read(registryReference(image), format, registryTrees(image))))
    else if (chosen < 95) {
      const tree = [...imported][random.below(imported.size)]
      if (tree !== undefined) found.push(...(await this.#read(`local:tree-${tree}`, format, [tree])))
    } else await sleep(random.below(200))
  }

  async #import(format: string): Promise<void> {
    const { daemon, directory, imported, nextTree } = this.#options
    const tree = nextTree()
    const source = mkdtempSync(join(directory, 'source-'))
    writeTree(source, tree)
    try {
      await daemon.call('import', { source, name: `tree-${tree}`, format })
      // Only imports that were reported while there was power.
      if (!this.#isEnding) imported.add(tree)
    } finally {
      await rm(source, { recursive: true })
    }
  }

  async #read(image: string, format: string, trees: number[]): Promise<string[]> {
    return (
      await this.#options.daemon.whileMounted(image, format, async (directory) => await compareTrees(directory, trees))
    ).map((finding) => `${image}: ${finding}`)
  }
}
