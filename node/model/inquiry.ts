import type { ErrorCode } from '../../protocol/errors.ts'

/** The peers and registries that were asked for a chunk that is under way, and their answers. */
export interface Inquiry {
  /** Peer ids of those that have been asked and have not answered. */
  peers: readonly string[]
  /** Peers that did not deliver. */
  refusals: readonly { peer: string; code: ErrorCode }[]
  /**
   * `asked`: an answer of the registry, or of the neighbour region in its place, is waited for. A code: it has failed
   * so, and is asked again. Undefined: nobody has asked it yet.
   */
  registry: 'asked' | ErrorCode | undefined
}
