import { randomUUID } from 'node:crypto'
import { P2pfsError } from '../../protocol/errors.ts'
import { isDiskFull } from '../base/disk-full.ts'
import type { Log } from '../base/log.ts'
import type { MountRequest, MountResult, Placed, ResetRequest, UmountRequest } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { HotImages } from '../hot/hot-images.ts'
import type { ImageResolver, MountPolicy } from '../images/resolver.ts'
import type { Mounts } from '../mount/mounts.ts'
import { checkDiskSize } from '../mount/placement/disk-template.ts'
import type { HeldCallers } from '../registry/held-callers.ts'
import type { DiskReserve } from '../store/disk-reserve.ts'
import type { ImageRequests } from './image-request.ts'
import { checkMountDirectory } from './mount-directory.ts'
import type { MountReports } from './mount-report.ts'

export interface MountParts {
  /** The directory in which nothing may be mounted. */
  stateDir: string
  requests: ImageRequests
  resolver: Pick<ImageResolver, 'resolveForMount'>
  /** Told for which mounts credentials of a caller are kept. */
  callers: HeldCallers
  mounts: Pick<Mounts, 'mount'>
  /** Given up where a mount of what is here lacks a few blocks of disk space. */
  reserve: Pick<DiskReserve, 'release'>
  reports: MountReports
  hot: Pick<HotImages, 'mounted'>
  log: Log
}

/** `p2pfs mount`. */
export class MountOperation {
  readonly #parts: MountParts
  readonly #pull: MountPolicy

  /** @param options `pull`: the policy of mounts that name none */
  constructor(parts: MountParts, { pull }: { pull: MountPolicy }) {
    this.#parts = parts
    this.#pull = pull
  }

  /** @throws timeout where the mount does not stand by the time that the request gives */
  async run(request: MountRequest, { signal, onProgress }: OperationOptions): Promise<MountResult> {
    const { requests, callers } = this.#parts
    const { as, image, timeoutMs, scratchBytes, limitBytes } = request
    // Now, and not when the image has been imported.
    for (const sizeBytes of [scratchBytes, limitBytes]) if (sizeBytes !== undefined) checkDiskSize(sizeBytes)
    const { reference, variant } = requests.parse(request, as === 'tree' ? 'erofs' : 'ext4')
    const mount = async (signal: AbortSignal): Promise<MountResult> =>
      await callers.during(
        reference,
        async () => await this.#mount(request, { reference, variant }, { signal, onProgress }),
      )
    if (timeoutMs === undefined) return await mount(signal)
    const late = new AbortController()
    const giveUp = (): void =>
      late.abort(
        new P2pfsError('timeout', `${image} is not mounted within ${timeoutMs / 1000} s; what has come is kept`),
      )
    const timer = setTimeout(giveUp, timeoutMs)
    try {
      return await mount(AbortSignal.any([signal, late.signal]))
    } finally {
      clearTimeout(timer)
    }
  }

  async #mount(
    request: MountRequest,
    { reference, variant }: ReturnType<ImageRequests['parse']>,
    { signal, onProgress }: OperationOptions,
  ): Promise<MountResult> {
    const { resolver, callers, mounts, reserve, reports, hot, log } = this.#parts
    const begunAtMs = performance.now()
    const {
      directory,
      as = 'drive',
      writable = false,
      limitBytes,
      scratchBytes,
      owner,
      allowOthers,
      pull = 'auto',
      requireAccess = false,
      auth,
    } = request
    await checkMountDirectory(directory, this.#parts.stateDir)
    const { record, manifest, belief, origin, resolution, unanswered } = await resolver.resolveForMount(
      reference,
      variant,
      {
        pull: pull === 'auto' ? this.#pull : pull,
        requireAccess,
        signal,
        onProgress: (progress) => onProgress({ step: 'import', ...progress }),
      },
    )
    if (record.format === 'raw' && as === 'tree')
      throw new P2pfsError(
        'unsupported',
        `${record.reference} is a raw image, which p2pfs does not look into: mount it as a drive, and then what is in it, ` +
          'where that is a filesystem: mount -o ro,loop DIR/rootfs.img TREE',
      )
    const { rootfsDigest, manifestDigest } = record
    const mount = {
      id: randomUUID(),
      directory,
      rootfsDigest,
      manifestDigest,
      reference: record.reference,
      platform: record.platform,
      format: record.format,
      origin,
      resolution,
      as,
      writable,
      ...(limitBytes === undefined ? {} : { limitBytes }),
      ...(scratchBytes === undefined ? {} : { scratchBytes }),
      ...(owner === undefined ? {} : { owner }),
      ...(allowOthers === undefined ? {} : { allowOthers }),
      ...(auth !== undefined && Object.keys(auth).length > 0 && { hadCredentials: true as const }),
      mountedAt: new Date().toISOString(),
    }
    const placed = await mounts.mount(manifest, mount, { signal }).catch(async (error: unknown) => {
      if (!isDiskFull(error)) throw error
      await reserve.release()
      return await mounts.mount(manifest, mount, { signal })
    })
    callers.hold(mount.id, reference)
    hot.mounted(record)
    const ms = Math.round(performance.now() - begunAtMs)
    log.info('image mounted', { image: record.reference, directory, as, digest: rootfsDigest, origin, resolution, ms })
    return {
      ...placed,
      as,
      format: manifest.format,
      digest: rootfsDigest,
      manifestDigest,
      origin,
      resolution,
      belief,
      ...(unanswered === undefined ? {} : { unanswered }),
      ...reports.of(rootfsDigest, manifest),
      config: JSON.parse(manifest.config) as unknown,
    }
  }
}

/** `p2pfs umount`. */
export class UmountOperation {
  readonly #mounts: Pick<Mounts, 'umount'>
  readonly #callers: Pick<HeldCallers, 'release'>
  readonly #log: Log

  constructor({
    mounts,
    callers,
    log,
  }: Pick<MountParts, 'log'> & {
    mounts: Pick<Mounts, 'umount'>
    callers: Pick<HeldCallers, 'release'>
  }) {
    this.#mounts = mounts
    this.#callers = callers
    this.#log = log
  }

  async run({ directory }: UmountRequest): Promise<Record<string, never>> {
    const { id } = await this.#mounts.umount(directory)
    this.#callers.release(id)
    this.#log.info('mount ended', { directory })
    return {}
  }
}

/** `p2pfs reset`. */
export class ResetOperation {
  readonly #mounts: Pick<Mounts, 'reset'>
  readonly #reserve: Pick<DiskReserve, 'release'>
  readonly #log: Log

  constructor({
    mounts,
    reserve,
    log,
  }: {
    mounts: Pick<Mounts, 'reset'>
    reserve: Pick<DiskReserve, 'release'>
    log: Log
  }) {
    this.#mounts = mounts
    this.#reserve = reserve
    this.#log = log
  }

  async run({ directory }: ResetRequest): Promise<Placed> {
    const placed = await this.#mounts.reset(directory).catch(async (error: unknown) => {
      if (!isDiskFull(error)) throw error
      await this.#reserve.release()
      return await this.#mounts.reset(directory)
    })
    this.#log.info('mount reset', { directory })
    return placed
  }
}
