import type { Network } from '../hosts/network.ts'
import type { Registry } from '../registry/registry.ts'

/** What the figures of one run are measured on. */
export interface Bench {
  network: Network
  registry: Registry
  /** The image, as hosts name it. */
  reference: string
  runs: number
}
