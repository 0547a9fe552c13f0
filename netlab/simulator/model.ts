/** Assumptions of the simulation about machines and links. */
export interface NetworkModel {
  /** Rate of each host's link, either way (bits a second). */
  hostBitsPerSecond: number
  /** One way between two hosts of the region (ms). */
  latencyMs: number
  /** CPU time of the daemon's main thread for each message that it sends or takes (ms). */
  cpuPerMessageMs: number
  /** CPU time for each byte that it sends or takes (ms): encryption, hashing, writing. */
  cpuPerByteMs: number
  /** CPU time of a handshake, on each side (ms). */
  cpuPerHandshakeMs: number
  /** Cores that all hosts share, as hosts of a lab do; undefined: one core for each host's daemon. */
  sharedCores: number | undefined
}

export interface RegistryModel {
  /** Rate of its link (bits a second). */
  bitsPerSecond: number
  /** From a request to the first byte, without the wait for its turn (ms). */
  firstByteMs: number
  /** Requests that it answers in a second, in all. */
  requestsPerSecond: number
}

/** The work of a container before it is ready. */
export interface BootModel {
  /** The command that asks for the mount, before the daemon hears of it (ms). */
  commandMs: number
  /** From the mount to the first read: the start of a process (ms). */
  startMs: number
  /** Time that it computes between reads, in all (ms). */
  computeMs: number
  /** CPU time of the daemon for each chunk that it keeps: decoding, hashing, writing, answering the kernel (ms). */
  cpuPerChunkMs: number
}

/**
 * A rack of machines whose daemons have run for a while. Ten Gbit/s, a tenth of a millisecond. CPU: a chunk of 100 KB with
 * its want takes 0.5 ms on both sides together, of which 2.2 ns a byte are what bulk connections take on the receiver's side
 * (docs/measurements.md).
 */
const rack = {
  network: {
    hostBitsPerSecond: 10e9,
    latencyMs: 0.1,
    cpuPerMessageMs: 0.05,
    cpuPerByteMs: 2.2e-6,
    cpuPerHandshakeMs: 2,
    sharedCores: undefined,
  },
  registry: { bitsPerSecond: 1e9, firstByteMs: 20, requestsPerSecond: 1_000 },
  boot: { commandMs: 0, startMs: 350, computeMs: 650, cpuPerChunkMs: 0.5 },
} as const

/**
 * netlab: hosts on a bridge of one machine, whose two cores all share, with daemons that have just been started, so that
 * V8 has compiled nothing yet. The command is Node's start, and it and the program take the same cores. CPU: a daemon alone takes 1.8 s until image *py* is ready, for 280 chunks, and 3.4 s among
 * twelve (`npm run burst -- --rate 25 --modes profile --hosts 1,12`).
 */
const lab = {
  network: {
    ...rack.network,
    latencyMs: 0.05,
    cpuPerMessageMs: 0.2,
    cpuPerByteMs: 5e-6,
    cpuPerHandshakeMs: 10,
    sharedCores: 2,
  },
  registry: rack.registry,
  boot: { commandMs: 300, startMs: 100, computeMs: 450, cpuPerChunkMs: 6 },
} as const

export const machineModels: Record<
  'rack' | 'lab',
  { network: NetworkModel; registry: RegistryModel; boot: BootModel }
> = {
  rack,
  lab,
}
