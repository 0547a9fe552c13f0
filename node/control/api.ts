/** What goes over the control socket: HTTP, JSON bodies. Long requests answer with one JSON object per line. */

/** `POST /seed`: {@link SeedRequest}; answers {@link Progress} lines, then one {@link Outcome} of {@link SeedResult}. */
export interface SeedRequest {
  image: string
  platform?: string
}

export interface SeedResult {
  reference: string
  platform: string
  digest: string
  sizeBytes: number
  /** Where the rootfs manifest came from: this host, a peer, or an import from the registry. */
  origin: 'local' | 'peer' | 'registry'
}

/** `POST /mount`: {@link MountRequest}; answers {@link Progress} lines, then one {@link Outcome} of {@link MountResult}. */
export interface MountRequest {
  image: string
  /** Absolute path of an existing directory. */
  directory: string
  platform?: string
}

export interface MountResult {
  /** Path of the image file: what a VM gets as its drive. */
  rootfs: string
  format: string
  /** The rootfs digest. */
  digest: string
  sizeBytes: number
  origin: 'local' | 'peer' | 'registry'
  /** The OCI image config. */
  config: unknown
}

/** `POST /umount`: answers one {@link Outcome} of an empty object. */
export interface UmountRequest {
  directory: string
}

export interface Progress {
  progress: { step: 'import' | 'fetch'; doneBytes: number; totalBytes: number }
}

export type Outcome<T> = { result: T } | { error: { code: string; message: string } }

export interface Amount {
  bytes: number
  chunks: number
}

/** `GET /status`. */
export interface Status {
  version: string
  daemonPid: number
  uptimeSeconds: number
  name: string
  region: string
  peerId: string
  addresses: string[]
  peers: { peer: string; name: string; addresses: string[]; connectedSeconds: number; sent: Amount; received: Amount }[]
  images: { reference: string; platform: string; digest: string; sizeBytes: number; localBytes: number }[]
  mounts: { directory: string; reference: string; digest: string; mountedAt: string }[]
  chunks: number
  /** What mounts have read since the daemon started, by where the chunk came from in that time. */
  served: { local: Amount; peer: Amount; registry: Amount }
  /** What this host has fetched since the daemon started; imports count as registry. */
  fetched: { peer: Amount; registry: Amount }
  /** What peers have had from this host since the daemon started. */
  sent: Amount
}
