import { mkdir } from 'node:fs/promises'
import { run } from './process.ts'

/** A filesystem image that this machine's kernel has mounted read-only through a loop device, until disposal. */
export class KernelMount implements AsyncDisposable {
  readonly directory: string
  #mounted = true

  private constructor(directory: string) {
    this.directory = directory
  }

  /** @throws unavailable if the kernel does not take it */
  static async create(
    image: string,
    directory: string,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<KernelMount> {
    await mkdir(directory, { recursive: true })
    await run('mount', ['-o', 'loop,ro', image, directory], { ...(signal && { signal }) })
    return new KernelMount(directory)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#mounted) return
    this.#mounted = false
    await run('umount', [this.directory])
  }
}
