import { randomUUID } from 'node:crypto'
import type { Log } from '../base/log.ts'
import type { MountRequest, MountResult, Placed, ResetRequest, UmountRequest } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { ImageResolver } from '../images/resolver.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { ImageRequests } from './image-request.ts'
import { checkMountDirectory } from './mount-directory.ts'
import type { MountReports } from './mount-report.ts'

export interface MountParts {
  /** Where nothing may be mounted. */
  stateDir: string
  requests: ImageRequests
  resolver: Pick<ImageResolver, 'resolveForMount'>
  mounts: Pick<Mounts, 'mount'>
  reports: MountReports
  log: Log
}

/** `p2pfs mount`. */
export class MountOperation {
  readonly #parts: MountParts

  constructor(parts: MountParts) {
    this.#parts = parts
  }

  async run(request: MountRequest, { signal, onProgress }: OperationOptions): Promise<MountResult> {
    const { requests, resolver, mounts, reports, log } = this.#parts
    const { directory, as = 'drive', writable = false, limitBytes, scratchBytes, pull = 'auto' } = request
    await checkMountDirectory(directory, this.#parts.stateDir)
    const { reference, variant } = requests.parse(request, as === 'tree' ? 'erofs' : 'ext4')
    const { record, manifest, origin, resolution, unanswered } = await resolver.resolveForMount(reference, variant, {
      pull,
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    const { rootfsDigest, manifestDigest } = record
    const mount = {
      id: randomUUID(),
      directory,
      rootfsDigest,
      manifestDigest,
      reference: record.reference,
      ...variant,
      origin,
      resolution,
      as,
      writable,
      ...(limitBytes === undefined ? {} : { limitBytes }),
      ...(scratchBytes === undefined ? {} : { scratchBytes }),
      mountedAt: new Date().toISOString(),
    }
    const placed = await mounts.mount(manifest, mount, { signal })
    log.info('image mounted', { image: record.reference, directory, as, digest: rootfsDigest, origin, resolution })
    return {
      ...placed,
      as,
      format: manifest.format,
      digest: rootfsDigest,
      manifestDigest,
      origin,
      resolution,
      ...(unanswered === undefined ? {} : { unanswered }),
      ...reports.of(rootfsDigest, manifest),
      config: JSON.parse(manifest.config) as unknown,
    }
  }
}

/** `p2pfs umount`. */
export class UmountOperation {
  readonly #mounts: Pick<Mounts, 'umount'>
  readonly #log: Log

  constructor({ mounts, log }: { mounts: Pick<Mounts, 'umount'>; log: Log }) {
    this.#mounts = mounts
    this.#log = log
  }

  async run({ directory }: UmountRequest): Promise<Record<string, never>> {
    await this.#mounts.umount(directory)
    this.#log.info('mount ended', { directory })
    return {}
  }
}

/** `p2pfs reset`. */
export class ResetOperation {
  readonly #mounts: Pick<Mounts, 'reset'>
  readonly #log: Log

  constructor({ mounts, log }: { mounts: Pick<Mounts, 'reset'>; log: Log }) {
    this.#mounts = mounts
    this.#log = log
  }

  async run({ directory }: ResetRequest): Promise<Placed> {
    const placed = await this.#mounts.reset(directory)
    this.#log.info('mount reset', { directory })
    return placed
  }
}
