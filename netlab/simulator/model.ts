/** What the simulation assumes of machines and links. */
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

/** What a container does before it is ready. */
export interface BootModel {
  /** Until the first read: the mount, the start of a process (ms). */
  startMs: number
  /** What it computes between reads, in all (ms). */
  computeMs: number
}

/**
 * Ten Gbit/s and a tenth of a millisecond: a rack. CPU: half of the 0.5 ms that a chunk of 100 KB takes with its want, of
 * which 2.2 ns a byte are what bulk connections take on the receiver's side (docs/measurements.md).
 */
export const rackNetwork: NetworkModel = {
  hostBitsPerSecond: 10e9,
  latencyMs: 0.1,
  cpuPerMessageMs: 0.05,
  cpuPerByteMs: 2.2e-6,
  cpuPerHandshakeMs: 2,
  sharedCores: undefined,
}

export const rackRegistry: RegistryModel = { bitsPerSecond: 1e9, firstByteMs: 20, requestsPerSecond: 1_000 }

/** Of image *py*, which one host of a lab starts in 6.6 s at 25 Mbit/s and in 2.5 s at 100 Mbit/s. */
export const pythonBoot: BootModel = { startMs: 350, computeMs: 650 }
