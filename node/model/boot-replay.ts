import type { Amount } from './progress.ts'

/** The holder of the boot profile: this host, a peer, or the registry, where it is published with the image. */
export type ProfileSource = 'local' | 'peer' | 'registry'

/** How far the chunks that an earlier boot read have been fetched ahead. All mounts of one rootfs share it. */
export interface BootReplay {
  source: ProfileSource
  /** All chunks of the profile that the image has. */
  total: Amount
  /** Those that are on this host now. */
  done: Amount
  /** Those that the replay has fetched, alone or together with a reader. */
  fetched: Amount
}
