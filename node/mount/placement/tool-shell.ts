import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { toolEnvironment, type ToolResult } from './run-tool.ts'

/**
 * The part of a tool's output that is kept (bytes): a write of PIPE_BUF to a pipe stays in one piece, see pipe(7), and
 * holds more.
 */
const maxMessageBytes = 3500

/**
 * Runs system tools from a small shell that stays, because a daemon of hundreds of megabytes takes ten times as long to
 * fork. Tools run side by side. The shell ends with the daemon.
 */
export class ToolShell {
  #shell: ChildProcessWithoutNullStreams | undefined
  readonly #waiting = new Map<number, (result: ToolResult) => void>()
  #next = 0

  /** Runs a tool to its end; never rejects. */
  readonly run = async (command: string, argv: readonly string[]): Promise<ToolResult> => {
    const shell = this.#open()
    const id = this.#next++
    return await new Promise<ToolResult>((resolve) => {
      this.#waiting.set(id, resolve)
      const words = [command, ...argv].map(quote).join(' ')
      // A single printf: the answers of tools that end together must not mix.
      shell.stdin.write(
        `{ said=$(${words} 2>&1 </dev/null); status=$?; ` +
          `printf '%s %s %.${maxMessageBytes}s\\0' ${id} "$status" "$said"; } &\n`,
      )
    })
  }

  stop(): void {
    this.#shell?.stdin.end()
    this.#shell = undefined
  }

  #open(): ChildProcessWithoutNullStreams {
    if (this.#shell !== undefined) return this.#shell
    const shell = spawn('sh', [], { stdio: ['pipe', 'pipe', 'pipe'], env: toolEnvironment() })
    this.#shell = shell
    let text = ''
    shell.stdout.setEncoding('utf8').on('data', (piece: string) => {
      text += piece
      for (let end = text.indexOf('\0'); end >= 0; end = text.indexOf('\0')) {
        this.#answer(text.slice(0, end))
        text = text.slice(end + 1)
      }
    })
    const lost = (message: string): void => {
      if (this.#shell === shell) this.#shell = undefined
      for (const resolve of this.#waiting.values()) resolve({ ok: false, message })
      this.#waiting.clear()
    }
    shell.stderr.resume()
    shell.stdin.on('error', () => undefined)
    shell.on('error', (error) => lost(error.message))
    shell.on('exit', () => lost('the shell that runs system tools has ended'))
    shell.unref()
    return shell
  }

  #answer(text: string): void {
    const [, id = '', status = '', message = ''] = /^(\d+) (\d+) (.*)$/s.exec(text) ?? []
    this.#waiting.get(Number(id))?.({ ok: status === '0', message: message.trim() })
    this.#waiting.delete(Number(id))
  }
}

/** Quotes a word for sh(1). */
function quote(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`
}
