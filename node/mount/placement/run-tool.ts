import { execFile, type ChildProcess } from 'node:child_process'

/** The outcome of a system tool. */
export interface ToolResult {
  ok: boolean
  message: string
}

/** Runs a tool to its end. */
export type RunTool = (command: string, argv: readonly string[]) => Promise<ToolResult>

/**
 * Runs mount(8), umount(8) and the like in a child process: the main thread must never wait for a mount that it serves
 * itself.
 */
export const runTool: RunTool = async (command, argv) =>
  await new Promise((resolve) => {
    const child: ChildProcess = execFile(
      command,
      argv,
      { env: { ...process.env, LC_ALL: 'C' } },
      (error, _stdout, stderr) => {
        resolve({ ok: error === null, message: stderr.trim() === '' ? (error?.message ?? '') : stderr.trim() })
      },
    )
    child.stdin?.end()
  })
