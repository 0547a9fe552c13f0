import type { Network } from '../hosts/network.ts'
import type { Registry } from '../registry/registry.ts'

/** The lab of one run of the bench. */
export interface Bench {
  network: Network
  registry: Registry
  /** The image's reference. */
  reference: string
  runs: number
}
