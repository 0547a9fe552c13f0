import type { BackgroundVerifier } from '../images/background-verifier.ts'
import type { RunningImports } from '../images/running-imports.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { Lies } from '../publish/lies.ts'
import type { Pins } from '../seeds/pins.ts'
import { labelled, single, type Figure } from './figure.ts'
import type { TimedMounts } from './timed-mounts.ts'

export interface ImageFiguresParts {
  mounts: Pick<Mounts, 'list' | 'reads'>
  timedMounts: Pick<TimedMounts, 'seconds' | 'failures'>
  imports: Pick<RunningImports, 'list' | 'ended'>
  lies: Pick<Lies, 'isContradicted'>
  verifier: Pick<BackgroundVerifier, 'pending'>
  pins: Pick<Pins, 'list'>
}

/** Images of this host, and what stands on them. */
export function imageFigures({ mounts, timedMounts, imports, lies, verifier, pins }: ImageFiguresParts): Figure[] {
  return [
    {
      type: 'gauge',
      name: 'p2pfs_mounts',
      help: 'Mounts of this host, by who answers their reads: the kernel alone (native), or the daemon (fuse).',
      labels: ['as', 'reads'],
      read: async () => {
        const reads = await mounts.reads()
        const records = mounts.list()
        return (['drive', 'tree'] as const).flatMap((as) =>
          (['fuse', 'native'] as const).map((answers) => ({
            labels: { as, reads: answers },
            value: records.filter((mount) => mount.as === as && (reads.get(mount.id) ?? 'fuse') === answers).length,
          })),
        )
      },
    },
    {
      type: 'histogram',
      name: 'p2pfs_mount_seconds',
      help: 'How long mounts took, by where the index of the image came from.',
      label: 'origin',
      read: () => timedMounts.seconds,
    },
    labelled(
      'counter',
      'p2pfs_mount_failures_total',
      'Mounts that failed, by the code of the error.',
      'code',
      () => timedMounts.failures,
    ),
    single(
      'gauge',
      'p2pfs_mounts_contradicted',
      'Mounts whose rootfs this host has proved not to be their image: what runs on them is to be ended.',
      () => mounts.list().filter((mount) => lies.isContradicted(mount)).length,
    ),
    single('gauge', 'p2pfs_imports_running', 'Imports of images under way on this host.', () => imports.list().length),
    labelled(
      'counter',
      'p2pfs_imports_total',
      'Imports of images that have ended on this host; aborted: nobody waited any more.',
      'outcome',
      () => imports.ended,
    ),
    single(
      'gauge',
      'p2pfs_images_to_verify',
      'Images that are believed on the word of members and are still to be verified.',
      () => verifier.pending,
    ),
    single('gauge', 'p2pfs_pins', 'Images that are kept on this host for seeds.', () => pins.list().length),
  ]
}
