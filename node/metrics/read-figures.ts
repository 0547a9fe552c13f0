import type { WholeReads } from '../layers/whole-reads.ts'
import type { FuseDriver } from '../mount/fuse/driver.ts'
import type { Mounts } from '../mount/mounts.ts'
import { labelled, single, type Figure } from './figure.ts'

export interface ReadFiguresParts {
  driver: Pick<FuseDriver, 'counters'>
  mounts: Pick<Mounts, 'waiting'>
  wholeReads: Pick<WholeReads, 'counts' | 'running'>
}

/** Figures of reads: the bytes that readers get, and how long they wait. */
export function readFigures({ driver, mounts, wholeReads }: ReadFiguresParts): Figure[] {
  return [
    labelled(
      'counter',
      'p2pfs_read_bytes_total',
      'Bytes that mounts have read, by where their chunk came from. Reads that the kernel answers alone are not counted.',
      'source',
      () => {
        const { local, peer, neighbour, registry } = driver.counters().served
        return { local: local.bytes, peer: peer.bytes, neighbour: neighbour.bytes, registry: registry.bytes }
      },
    ),
    single(
      'counter',
      'p2pfs_read_errors_total',
      'Reads of mounts that were answered with an I/O error.',
      () => driver.counters().errors,
    ),
    {
      type: 'histogram',
      name: 'p2pfs_read_wait_seconds',
      help:
        'How long reads waited for a chunk that was not here when they came, by where it came from; none: from nowhere, ' +
        'within the deadline.',
      label: 'source',
      read: () => mounts.waiting.waits,
    },
    single(
      'gauge',
      'p2pfs_reads_waiting',
      'Reads that wait for a chunk now; a read over several chunks counts for each.',
      () => mounts.waiting.count,
    ),
    single('gauge', 'p2pfs_reads_slow', 'Those of them that have waited for two seconds.', () => mounts.waiting.slow),
    single(
      'gauge',
      'p2pfs_read_longest_wait_seconds',
      'How long the read that has waited longest has waited; 0 where none waits.',
      () => mounts.waiting.longestMs / 1000,
    ),
    labelled(
      'counter',
      'p2pfs_whole_layer_reads_total',
      'Layers that were streamed whole although their image is read lazily, by the reason.',
      'reason',
      () => wholeReads.counts,
    ),
    single('gauge', 'p2pfs_whole_layer_reads_running', 'Layers that are streamed whole now.', () => wholeReads.running),
  ]
}
