import type { Progress } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import type { OperationName, RequestOf, ResultOf } from '../node/control/operations.ts'
import { printJson, printLines } from './output.ts'

/** Shows how far a request is. */
export interface ProgressView {
  show: (progress: Progress['progress']) => void
  /** Nothing is shown after it, and the terminal is as it was. */
  end: () => void
}

const modes = ['auto', 'plain', 'json', 'none'] as const
export type ProgressMode = (typeof modes)[number]

/** The option of the commands that take long. */
export const progressOption = {
  progress: {
    value: 'HOW',
    help:
      'how far it is, how fast, and where the bytes come from, on stderr: auto (a line that is rewritten in a terminal, ' +
      'else a few lines; none with --json), plain (a few lines), json (a JSON object a line) or none',
    fallback: 'auto',
    choices: modes,
  },
} as const

/** Sends a long request to the daemon, and shows its progress. @param mode one of `progressOption` */
export async function callShowingProgress<Name extends OperationName>(
  name: Name,
  request: RequestOf<Name>,
  { control, json, mode = 'auto' }: { control: string; json: boolean; mode?: string | undefined },
): Promise<ResultOf<Name>> {
  const load = viewFor(mode, { json, isTerminal: process.stderr.isTTY })
  let view: ProgressView | undefined
  let loading: Promise<void> | undefined
  const onProgress = (progress: Progress['progress']): void => {
    if (view !== undefined) return view.show(progress)
    loading ??= load?.().then((loaded) => {
      view = loaded
      view.show(progress)
    })
  }
  try {
    return await call(name, request, { socket: control, onProgress })
  } finally {
    await loading
    view?.end()
  }
}

/**
 * The same, and prints the result on stdout: as JSON, or without `--json` as the lines of `describe`.
 */
export async function callWithProgress<Name extends OperationName>(
  name: Name,
  request: RequestOf<Name>,
  { control, json, values }: { control: string; json: boolean; values: { progress?: string } },
  describe: (result: ResultOf<Name>) => string[],
): Promise<ResultOf<Name>> {
  const result = await callShowingProgress(name, request, { control, json, mode: values.progress })
  if (json) printJson(result)
  else printLines(describe(result))
  return result
}

/** Loads the view when there is progress to show: most mounts have none. @returns undefined where none is to be shown */
export function viewFor(
  mode: string,
  { json, isTerminal }: { json: boolean; isTerminal: boolean | undefined },
): (() => Promise<ProgressView>) | undefined {
  if (mode === 'json') return async () => new (await import('./progress/json-progress.ts')).JsonProgress()
  if (mode === 'none' || (mode === 'auto' && json)) return undefined
  if (mode === 'auto' && isTerminal === true)
    return async () => new (await import('./progress/line-progress.ts')).LineProgress()
  return async () => new (await import('./progress/plain-progress.ts')).PlainProgress()
}
