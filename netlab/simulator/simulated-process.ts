import type { SimulationArguments } from './command-line.ts'
import { installClock } from './process-clock.ts'
import { installRandom } from './process-random.ts'
import { VirtualClock } from './virtual-clock.ts'

// The process gets its clock before any module of the product is loaded, which may keep a function of it.
const args = JSON.parse(process.argv[2]!) as SimulationArguments
const clock = new VirtualClock()
const random = installRandom(Number(args.seed))
installClock(clock)
const { runSimulation } = await import('./run-simulation.ts')
const result = await runSimulation({ clock, random }, args)
// Timers that still run do so in virtual time, which has ended.
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit())
