import { availableParallelism } from 'node:os'
import { type Option, duration, size, text } from './option.ts'

/** Mounts: who serves their reads, and for how long a read waits. */
export const mountOptions = {
  fuseDriver: text(
    'dev|native',
    'dev',
    'dev uses /dev/fuse directly: it needs root, and mounts survive a crash of the daemon. native uses libfuse 2: it ' +
      'needs no root, and mounts end with the daemon',
    { choices: ['dev', 'native'] },
  ),
  fuseWorkers: {
    type: 'count',
    value: 'N',
    fallback: Math.min(4, Math.max(2, availableParallelism())),
    fallbackText: 'the number of cores, 2 to 4',
    meaning: 'how many threads serve reads (only with --fuse-driver dev)',
    // Each is a thread of some megabytes.
    max: 64,
  } as Option<number>,
  nativeReads: text(
    'off|trees|all',
    'trees',
    'whether images that are whole on this host are read by its kernel, without the daemon. all: drives, too, whose files ' +
      'nobody can then open with O_DIRECT (cache=none of QEMU)',
    { choices: ['off', 'trees', 'all'] },
  ),
  nativeLimit: size(
    32 * 2 ** 30,
    'how much disk the files for that may take, besides the chunks; 15 % of the disk stay free of them in any case',
  ),
  readDeadline: duration(
    60,
    'how long a read waits for data that no source delivers; after that it fails with an I/O error',
  ),
  bootProfiles: text(
    'on|off',
    'on',
    'whether to record what a mount reads first, share it with the region, and fetch it ahead for later mounts',
    { choices: ['on', 'off'] },
  ),
} as const
