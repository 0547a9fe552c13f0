import { parseArgs } from 'node:util'
import { simulationHelp, simulationOptions } from './command-line.ts'
import { installClock } from './process-clock.ts'
import { installRandom } from './process-random.ts'
import { VirtualClock } from './virtual-clock.ts'

// The process gets its clock before any module of the product is loaded, which may keep a function of it.
const { values } = parseArgs({ options: simulationOptions })
if (values.help) process.stdout.write(simulationHelp)
else {
  const clock = new VirtualClock()
  const random = installRandom(Number(values.seed))
  installClock(clock)
  const { runSimulations } = await import('./run-simulations.ts')
  process.exitCode = await runSimulations({ clock, random }, values)
  // Timers of the simulated hosts wait in virtual time, which has ended.
  process.exit()
}
