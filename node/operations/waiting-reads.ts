import type { Status, WaitingReadReport } from '../control/api.ts'
import type { WaitingRead, WaitingReads } from '../mount/waiting-reads.ts'
import type { PeerStatus } from '../peers/membership.ts'

/** Reads that `status` tells of one by one. */
const maxListed = 5

/** Describes the reads that wait, for `status`. @param peers gives peer ids their names */
export function waitingReadsOf(
  waiting: Pick<WaitingReads, 'count' | 'slow' | 'longest'>,
  peers: readonly Pick<PeerStatus, 'peer' | 'name'>[],
): Status['waitingReads'] {
  const names = new Map(peers.map(({ peer, name }) => [peer, name]))
  const longest = waiting.longest(maxListed).map((read) => reportOf(read, names))
  return { count: waiting.count, slow: waiting.slow, longest }
}

function reportOf(
  { images, rootfs, chunk, waitedMs, failsInMs, inquiry, failure }: WaitingRead,
  names: ReadonlyMap<string, string>,
): WaitingReadReport {
  const named = (peer: string): { peer: string; name?: string } => {
    const name = names.get(peer)
    return { peer, ...(name !== undefined && { name }) }
  }
  return {
    images,
    rootfs,
    chunk,
    waitedSeconds: waitedMs / 1000,
    failsInSeconds: failsInMs / 1000,
    asked: (inquiry?.peers ?? []).map(named),
    ...(inquiry?.registry !== undefined && { registry: inquiry.registry }),
    refusals: (inquiry?.refusals ?? []).map(({ peer, code }) => ({ ...named(peer), code })),
    ...(failure !== undefined && { failure }),
  }
}
