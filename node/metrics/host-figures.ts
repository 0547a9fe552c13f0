import { readdir } from 'node:fs/promises'
import type { EventLoopDelay } from '../base/event-loop-delay.ts'
import type { Room } from '../store/disk-room.ts'
import type { Inventory } from '../store/inventory.ts'
import type { StoreRoom } from '../store/store-room.ts'
import { labelled, single, type Figure } from './figure.ts'

/** How many daemons a supervisor has replaced: by order, and because they ended. */
export interface Replacements {
  ordered: number
  unexpected: number
}

export interface HostFiguresParts {
  version: string
  replacements: Replacements
  inventory: Pick<Inventory, 'count'>
  storeRoom: Pick<StoreRoom, 'usedBytes' | 'limitBytes' | 'evicted'>
  /** The room on the filesystem of the store. */
  room: () => Promise<Room>
  loopDelay: Pick<EventLoopDelay, 'figures'>
}

const bytesPerKibibyte = 1024
const microsecondsPerSecond = 1e6

/** The daemon itself, and its disk. */
export function hostFigures(parts: HostFiguresParts): Figure[] {
  const { inventory, storeRoom, room, loopDelay } = parts
  const startSeconds = Date.now() / 1000 - process.uptime()
  return [
    {
      type: 'gauge',
      name: 'p2pfs_build_info',
      help: 'Always 1; the labels tell which version runs.',
      labels: ['version', 'node'],
      bound: 'one value in a process',
      read: () => [{ labels: { version: parts.version, node: process.versions.node }, value: 1 }],
    },
    labelled(
      'counter',
      'p2pfs_daemon_replacements_total',
      'Daemons that were replaced since the supervisor started, by order (SIGHUP) or because they ended unexpectedly.',
      'cause',
      () => ({ ...parts.replacements }),
    ),
    single('gauge', 'p2pfs_store_chunks', 'Chunks in the store.', () => inventory.count),
    single(
      'gauge',
      'p2pfs_store_bytes',
      'Bytes of chunks, and of files for native reads, in the store.',
      () => storeRoom.usedBytes,
    ),
    {
      type: 'gauge',
      name: 'p2pfs_store_limit_bytes',
      help: 'What the store may take by --store-limit and --store-keep-free; absent where neither bounds it.',
      labels: [],
      bound: 'one value',
      read: () => (storeRoom.limitBytes < Number.MAX_SAFE_INTEGER ? [{ labels: {}, value: storeRoom.limitBytes }] : []),
    },
    single(
      'counter',
      'p2pfs_evicted_bytes_total',
      'Bytes of chunks that were evicted for the limits of the store.',
      () => storeRoom.evicted.bytes,
    ),
    single(
      'gauge',
      'p2pfs_store_disk_free_bytes',
      'Room that is left on the filesystem of the store.',
      async () => (await room()).freeBytes,
    ),
    single(
      'gauge',
      'p2pfs_store_disk_size_bytes',
      'Size of the filesystem of the store.',
      async () => (await room()).sizeBytes,
    ),
    single(
      'gauge',
      'p2pfs_event_loop_delay_seconds',
      'How long the main thread let what was due wait: the longest time of the last minute or two.',
      () => loopDelay.figures().max / 1000,
    ),
    single(
      'gauge',
      'p2pfs_event_loop_delay_p99_seconds',
      'The same, in 99 of 100 cases.',
      () => loopDelay.figures().p99 / 1000,
    ),
    single(
      'gauge',
      'p2pfs_process_start_time_seconds',
      'When the daemon started, in seconds since 1970.',
      () => startSeconds,
    ),
    single('counter', 'p2pfs_process_cpu_seconds_total', 'CPU time of the daemon.', () => {
      const { user, system } = process.cpuUsage()
      return (user + system) / microsecondsPerSecond
    }),
    single('gauge', 'p2pfs_process_resident_memory_bytes', 'Memory of the daemon, as the kernel counts it.', () =>
      process.memoryUsage.rss(),
    ),
    single(
      'gauge',
      'p2pfs_process_resident_memory_peak_bytes',
      'The most that it was.',
      () => process.resourceUsage().maxRSS * bytesPerKibibyte,
    ),
    single(
      'gauge',
      'p2pfs_process_heap_bytes',
      'Heap of JavaScript that is in use.',
      () => process.memoryUsage().heapUsed,
    ),
    single(
      'gauge',
      'p2pfs_process_buffer_bytes',
      'Buffers outside of that heap.',
      () => process.memoryUsage().external,
    ),
    single(
      'gauge',
      'p2pfs_process_open_fds',
      'File descriptors that are open.',
      async () => (await readdir('/proc/self/fd')).length,
    ),
  ]
}
