import { execFile, type ChildProcess } from 'node:child_process'
import { isAbsolute } from 'node:path'

/** The outcome of a system tool. */
export interface ToolResult {
  ok: boolean
  message: string
}

/** Runs a tool to its end. */
export type RunTool = (command: string, argv: readonly string[]) => Promise<ToolResult>

/**
 * The environment of system tools, which run with the rights of this process: its PATH without places that depend on the
 * working directory, and nothing that changes what a tool or perl does. Messages are in English.
 */
export function toolEnvironment(environment: NodeJS.ProcessEnv = process.env): { PATH: string; LC_ALL: 'C' } {
  const places = (environment['PATH'] ?? '').split(':').filter((place) => isAbsolute(place))
  return { PATH: places.join(':'), LC_ALL: 'C' }
}

/**
 * Runs mount(8), umount(8) and the like in a child process: the main thread must never wait for a mount that it serves
 * itself.
 */
export const runTool: RunTool = async (command, argv) =>
  await new Promise((resolve) => {
    const child: ChildProcess = execFile(command, argv, { env: toolEnvironment() }, (error, _stdout, stderr) => {
      resolve({ ok: error === null, message: stderr.trim() === '' ? (error?.message ?? '') : stderr.trim() })
    })
    child.stdin?.end()
  })
