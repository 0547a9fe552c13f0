import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { P2pfsError } from '../../protocol/errors.ts'

/** The output of a finished command. It is bytes, because names in it need not be text. */
export interface CommandOutput {
  stdout: Buffer
  stderr: string
}

export interface RunOptions {
  signal?: AbortSignal
  /** Goes to its standard input, which is empty by default. */
  input?: Uint8Array
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** Exit statuses that mean success; 0 by default. */
  accept?: readonly number[]
}

/** A command that prints more bytes than this is in a loop. */
const maxOutputBytes = 256 << 20

/**
 * Runs a command to its end. `signal` kills it.
 *
 * @throws unsupported if the command is not installed; unavailable, with `exitCode` and `stderr`, if it fails
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<CommandOutput> {
  const { signal, input, cwd, env, accept = [0] } = options
  signal?.throwIfAborted()
  const child = spawn(command, args, {
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    ...(cwd === undefined ? {} : { cwd }),
    ...(env === undefined ? {} : { env }),
  })
  const stdout = collect(child, 'stdout')
  const stderr = collect(child, 'stderr')
  child.stdin?.on('error', () => undefined)
  child.stdin?.end(input)
  const kill = (): void => void child.kill('SIGKILL')
  signal?.addEventListener('abort', kill, { once: true })
  try {
    const exitCode = await ended(child, command)
    signal?.throwIfAborted()
    const output = { stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }
    if (accept.includes(exitCode ?? -1)) return output
    throw new P2pfsError(
      'unavailable',
      `${command} ${args.join(' ')}: ${lastLines(output.stderr || output.stdout.toString(), 10)}`,
      {
        exitCode,
        stderr: output.stderr,
      },
    )
  } finally {
    signal?.removeEventListener('abort', kill)
  }
}

/**
 * Starts a command that stays. It leads a process group of its own, so that all that it starts can be ended with it.
 *
 * @throws unsupported if it is not installed
 */
export async function start(
  command: string,
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: 'ignore', ...options, detached: true })
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', (cause) => reject(notInstalled(command, cause)))
  })
  return child
}

/** Resolves when the process has ended. */
export async function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  await new Promise<void>((resolve) => child.once('exit', () => resolve()))
}

export function lastLines(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n')
}

function collect(child: ChildProcess, stream: 'stdout' | 'stderr'): Buffer[] {
  const pieces: Buffer[] = []
  let sizeBytes = 0
  child[stream]?.on('data', (piece: Buffer) => {
    sizeBytes += piece.length
    if (sizeBytes > maxOutputBytes) child.kill('SIGKILL')
    else pieces.push(piece)
  })
  return pieces
}

function ended(child: ChildProcess, command: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(notInstalled(command, cause)))
    child.once('close', (exitCode) => resolve(exitCode ?? undefined))
  })
}

function notInstalled(command: string, cause: Error): P2pfsError {
  return new P2pfsError('unsupported', `cannot run ${command}: is it installed?`, { cause, command })
}
