import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { P2pfsError } from '../../protocol/errors.ts'
import { exited } from '../hosts/process.ts'
import type { ReadJob, ReadResult } from './read-job.ts'

const program = fileURLToPath(new URL('./reader-main.ts', import.meta.url))

/** A process that reads files and compares them: one that waits for a mount holds up nobody else. */
export class Reader implements AsyncDisposable {
  readonly #process: ChildProcess
  readonly #answers: AsyncIterator<string>

  constructor() {
    this.#process = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#answers = createInterface(this.#process.stdout!)[Symbol.asyncIterator]()
  }

  /** One job at a time. */
  async read(job: ReadJob): Promise<ReadResult> {
    this.#process.stdin!.write(`${JSON.stringify(job)}\n`)
    const answer = await this.#answers.next()
    if (answer.done === true) throw new P2pfsError('closed', 'the reader has ended')
    return JSON.parse(answer.value) as ReadResult
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = exited(this.#process)
    this.#process.stdin!.end()
    await ended
  }
}
