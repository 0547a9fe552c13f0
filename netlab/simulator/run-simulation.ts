import type { SimulationArguments } from './command-line.ts'
import { machineModels } from './model.ts'
import type { Random } from './process-random.ts'
import type { Scenario } from './scenario.ts'
import { pythonImage, scaledImage } from './simulated-image.ts'
import { simulate, type SimulationResult } from './simulation.ts'
import type { VirtualClock } from './virtual-clock.ts'

/** Runs one simulation in this process, which has the clock of it. */
export async function runSimulation(
  parts: { clock: VirtualClock; random: Random },
  args: SimulationArguments,
): Promise<SimulationResult> {
  const { network, registry, boot } = machineModels[args.machines as keyof typeof machineModels]
  const megabits = (value: string | undefined, otherwise: number): number =>
    value === undefined ? otherwise : Number(value) * 1e6
  const model = {
    network: {
      ...network,
      hostBitsPerSecond: megabits(args['host-rate'], network.hostBitsPerSecond),
      cpuPerHandshakeMs: Number(args.handshake ?? network.cpuPerHandshakeMs),
    },
    registry: { ...registry, bitsPerSecond: megabits(args.rate, registry.bitsPerSecond) },
    image: { ...scaledImage(pythonImage, Number(args['image-scale'])), hasLater: Number(args.last) > 0 },
    boot,
  }
  return await simulate(parts, model, {
    hosts: Number(args.hosts),
    containersPerHost: Number(args.containers),
    scenario: args.scenario as Scenario,
    seed: Number(args.seed),
    fullMesh: args['full-mesh'] === undefined ? undefined : Number(args['full-mesh']),
    isSettled: args.settled,
    settleMs: Number(args.settle) * 1000,
    lastMs: Number(args.last) * 1000,
    restMs: Number(args.rest) * 1000,
    timeoutMs: Number(args.timeout) * 1000,
    bounds: { readMs: Number(args['max-read']) * 1000, copies: Number(args['max-copies']) },
    traced: new Set(args.trace.map(Number)),
    print: (line) => void process.stderr.write(`${line}\n`),
  })
}
