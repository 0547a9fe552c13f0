import { execFile, type ChildProcess } from 'node:child_process'

/** What a system tool said. */
export interface ToolResult {
  ok: boolean
  message: string
}

/** Runs mount(8), umount(8) and the like to their end. A child, because the main thread must never wait for the own mount. */
export async function runTool(command: string, argv: readonly string[]): Promise<ToolResult> {
  return await new Promise((resolve) => {
    const child: ChildProcess = execFile(command, argv, { env: { ...process.env, LC_ALL: 'C' } }, (error, _stdout, stderr) => {
      resolve({ ok: error === null, message: stderr.trim() === '' ? (error?.message ?? '') : stderr.trim() })
    })
    child.stdin?.end()
  })
}
