import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { dropPageCache } from '../lost-chunks.ts'

/** Reads a drive or a tree over and over, and ends at the first error or difference. It says `.` for each time. */
const script = `of() {
  if [ -d "$1" ]; then (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum; else sha256sum <"$1"; fi
}
while [ ! -e "$3" ]; do
  found=$(of "$1" 2>&1)
  [ "$found" = "$2" ] || { echo "$1: $found, not $2"; exit 1; }
  printf .
done`

/** A place for readers: a command that runs theirs there, and the root of that place on this host. */
export interface Place {
  enter: readonly string[]
  root: string
}

const here: Place = { enter: ['env'], root: '' }

/** The content that a reader finds in a drive or tree that is right. */
function contentOf(path: string, [command = '', ...argv]: readonly string[]): string {
  const once = script.replace(/while[^]*$/, 'of "$1"')
  return execFileSync(command, [...argv, 'sh', '-c', once, 'sh', path], { encoding: 'utf8' }).trim()
}

/**
 * One process for each mount, which compares all of it with what was there at first; the page cache is dropped all the
 * time.
 */
export class Readers {
  readonly #stopFile: string
  readonly #readers: { child: ChildProcess; said: string }[]
  readonly #dropping: NodeJS.Timeout

  /** @param directory takes the file that ends them; both it and `paths` as they are called there */
  constructor(context: TestContext, directory: string, paths: readonly string[], { enter, root }: Place = here) {
    const stopFile = join(directory, 'stop-readers')
    this.#stopFile = join(root, stopFile)
    const [command = '', ...argv] = enter
    this.#readers = paths.map((path) => {
      const child = spawn(command, [...argv, 'sh', '-c', script, 'sh', path, contentOf(path, enter), stopFile], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const reader = { child, said: '' }
      child.stdout.setEncoding('utf8').on('data', (text: string) => (reader.said += text))
      return reader
    })
    this.#dropping = setInterval(dropPageCache, 300)
    context.after(() => {
      clearInterval(this.#dropping)
      for (const { child } of this.#readers) child.kill('SIGKILL')
    })
  }

  /** How often all mounts have been read by now, at least. @throws at the first difference */
  get rounds(): number {
    for (const { child, said } of this.#readers) if (child.exitCode !== null) throw new Error(`a reader ended: ${said}`)
    return Math.min(...this.#readers.map(({ said }) => said.length))
  }

  /** Waits until all mounts have been read once more. */
  async readAll(): Promise<void> {
    // One round may have begun before this call.
    for (const enough = this.rounds + 2; this.rounds < enough;) await new Promise((over) => setTimeout(over, 50))
  }

  /** @returns what readers have found that is not right */
  async stop(): Promise<string[]> {
    writeFileSync(this.#stopFile, '')
    clearInterval(this.#dropping)
    for (const { child } of this.#readers) if (child.exitCode === null) await once(child, 'exit')
    return this.#readers.map(({ said }) => said.replaceAll('.', '')).filter((said) => said !== '')
  }
}
