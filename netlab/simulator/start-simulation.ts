import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { SimulationArguments } from './command-line.ts'
import type { SimulationResult } from './simulation.ts'

const program = fileURLToPath(new URL('simulated-process.ts', import.meta.url))
/** The heap may have so much (MiB): 10,000 hosts are to fit. */
const heapMebibytes = 16_000
/** As the daemon's own process: without it all garbage is collected whenever 64 MB of buffers have come and gone. */
const flags = [
  '--disable-warning=ExperimentalWarning',
  '--external-memory-accounted-in-global-limit',
  '--max-semi-space-size=64',
  `--max-old-space-size=${heapMebibytes}`,
]

/**
 * Runs one simulation in a process of its own, whose clock and random numbers are replaced. Its traces go to standard
 * error.
 * @param args `hosts` is one number
 * @throws where the process fails
 */
export async function startSimulation(
  args: SimulationArguments,
  { signal }: { signal?: AbortSignal } = {},
): Promise<SimulationResult> {
  const running = promisify(execFile)(process.execPath, [...flags, program, JSON.stringify(args)], {
    maxBuffer: Infinity,
    ...(signal && { signal }),
  })
  running.child.stderr?.pipe(process.stderr)
  const { stdout } = await running
  return JSON.parse(stdout) as SimulationResult
}
