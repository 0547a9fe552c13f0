import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { isCopy, seedJobId, type SeedJob, type SeedPlaces } from '../../protocol/seed-job.ts'
import type { CancelSeedRequest, SeedJobReport, SeedJobRequest, SeedJobResult, SeedJobs } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import { asUsage } from '../control/usage.ts'
import type { ImageResolver } from '../images/resolver.ts'
import type { ImageRootfs } from '../model/image.ts'
import { sizeOf } from '../model/rootfs-chunks.ts'
import type { HeldCallers } from '../registry/held-callers.ts'
import type { Membership } from '../peers/membership.ts'
import type { RegionHosts } from '../seeds/region-hosts.ts'
import type { SeedJobs as Jobs } from '../seeds/seed-jobs.ts'
import { formatsOf, type ImageRequests } from './image-request.ts'

const minuteMs = 60_000
const defaultTtlMs = 24 * 60 * minuteMs
const defaultTimeoutMs = 60 * minuteMs
/** How long the region may lack hosts for a job before whoever waits for it is told (ms): a daemon is replaced within it. */
const stuckMs = 30_000
/** As libp2p writes the id of an Ed25519 key. */
const peerIdPattern = /^12D3Koo[1-9A-HJ-NP-Za-km-z]{45}$/

export interface PlaceSeedParts {
  requests: ImageRequests
  resolver: Pick<ImageResolver, 'resolveForSeed'>
  callers: Pick<HeldCallers, 'during'>
  membership: Pick<Membership, 'whenRegionKnown'>
  hosts: Pick<RegionHosts, 'alive'>
  jobs: Pick<Jobs, 'accept' | 'endOf' | 'wait'>
}

/** `p2pfs seed` with options for the region: resolves the image here, once, and has the region hold it. */
export class PlaceSeedOperation {
  readonly #parts: PlaceSeedParts

  constructor(parts: PlaceSeedParts) {
    this.#parts = parts
  }

  /**
   * @throws invalid for a time that is too long; missing for a host of a name that nobody has; conflict for a name that several have; what the resolver and the
   * jobs throw
   */
  async run(request: SeedJobRequest, options: OperationOptions): Promise<SeedJobResult> {
    const { requests, callers } = this.#parts
    const { as = [] } = request
    const image = requests.parse(request)
    const formats = as.length === 0 ? [image.variant.format] : formatsOf(as)
    return await callers.during(image.reference, async () => await this.#place(request, { ...image, formats }, options))
  }

  /** Each format has a job of its own, which members of every version can carry out; the jobs share a group, and so their hosts. */
  async #place(
    request: SeedJobRequest,
    { reference, variant, formats }: ReturnType<ImageRequests['parse']> & { formats: readonly RootfsFormat[] },
    { signal, onProgress }: OperationOptions,
  ): Promise<SeedJobResult> {
    const { resolver, membership, jobs } = this.#parts
    const { hot = false, ttlMs = defaultTtlMs, atMs = 0, wait = true, timeoutMs = defaultTimeoutMs } = request
    // Before the image is imported for nothing.
    asUsage(() => jobs.endOf({ atMs, ttlMs }))
    await membership.whenRegionKnown({ signal })
    const places = this.#placesOf(request)
    // By its rootfs: a raw image is the same in each format.
    const found = new Map<string, ImageRootfs>()
    for (const format of formats) {
      const image = await resolver.resolveForSeed(
        reference,
        { ...variant, format },
        { signal, onProgress: (progress) => onProgress({ step: 'import', ...progress }) },
      )
      found.set(image.record.rootfsDigest, image)
    }
    const extent = hot ? ('hot' as const) : ('full' as const)
    const orders = [...found.values()].map(({ record, manifest }) => {
      const { reference: name, platform, format, manifestDigest, rootfsDigest } = record
      const image = { reference: name, platform, format, manifestDigest, rootfsDigest }
      return { order: { image, extent, places, atMs, ttlMs }, manifest }
    })
    const [first] = orders
    const group = orders.length > 1 ? { group: seedJobId({ ...first!.order.image, ...first!.order }) } : {}
    const accepted: { job: SeedJob; manifest: RootfsManifest }[] = []
    for (const { order, manifest } of orders)
      accepted.push({ job: await jobs.accept({ ...order, ...group }), manifest })
    if (!wait) return resultOf(accepted.map(({ job }) => reportOf(job)))
    const shares = new Map<string, { doneBytes: number; totalBytes: number }>()
    const waited = accepted.map(async ({ job, manifest }) => {
      const sizeBytes = sizeOf(manifest)
      const onChange = (job: SeedJob): void => {
        const { done, total } = shareOf(job, this.#parts.hosts.alive().size)
        shares.set(job.id, { doneBytes: Math.floor(done * sizeBytes), totalBytes: total * sizeBytes })
        onProgress({ step: 'place', ...sumOf([...shares.values()]) })
      }
      return await jobs.wait(job.id, { signal, timeoutMs, stuckMs, onChange })
    })
    const ended = await Promise.all(waited)
    const result = resultOf(ended.map(({ job }) => reportOf(job)))
    return { ...result, placed: ended.every(({ isPlaced }) => isPlaced) }
  }

  #placesOf({ copies = 1, on }: SeedJobRequest): SeedPlaces {
    if (on !== undefined) return { on: [...new Set(on.map((host) => this.#idOf(host)))].toSorted() }
    return copies === 'all' ? { all: true } : { copies }
  }

  #idOf(host: string): string {
    const known = [...this.#parts.hosts.alive().values()]
    if (known.some(({ id }) => id === host) || peerIdPattern.test(host)) return host
    const named = known.filter(({ name }) => name === host)
    if (named.length === 1) return named[0]!.id
    if (named.length === 0)
      throw new P2pfsError(
        'missing',
        `no member that is alive is called ${host}; p2pfs status lists names and peer ids`,
      )
    const ids = named.map(({ id }) => id).join(', ')
    throw new P2pfsError('conflict', `${named.length} members are called ${host}; name one by its peer id: ${ids}`)
  }
}

/** `p2pfs seeds`. */
export class ListSeedsOperation {
  readonly #jobs: Pick<Jobs, 'list'>

  constructor({ jobs }: { jobs: Pick<Jobs, 'list'> }) {
    this.#jobs = jobs
  }

  async run(_request: object, { signal }: Pick<OperationOptions, 'signal'>): Promise<SeedJobs> {
    const jobs = await this.#jobs.list({ signal })
    return { seeds: jobs.toSorted((a, b) => b.createdAtMs - a.createdAtMs).map(reportOf) }
  }
}

/** `p2pfs seeds cancel`. */
export class CancelSeedOperation {
  readonly #jobs: Pick<Jobs, 'cancel'>

  constructor({ jobs }: { jobs: Pick<Jobs, 'cancel'> }) {
    this.#jobs = jobs
  }

  /** @throws missing where nobody in the region knows the job */
  async run({ id }: CancelSeedRequest, { signal }: Pick<OperationOptions, 'signal'>): Promise<SeedJobReport> {
    return reportOf(await this.#jobs.cancel(id, { signal }))
  }
}

function resultOf([first, ...others]: SeedJobReport[]): SeedJobResult {
  return { ...first!, ...(others.length > 0 && { others }) }
}

function sumOf(shares: readonly { doneBytes: number; totalBytes: number }[]): {
  doneBytes: number
  totalBytes: number
} {
  return {
    doneBytes: shares.reduce((sum, { doneBytes }) => sum + doneBytes, 0),
    totalBytes: shares.reduce((sum, { totalBytes }) => sum + totalBytes, 0),
  }
}

function reportOf(job: SeedJob): SeedJobReport {
  const { places } = job
  return {
    id: job.id,
    reference: job.reference,
    platform: job.platform,
    format: job.format,
    digest: job.rootfsDigest,
    manifestDigest: job.manifestDigest,
    hot: job.extent === 'hot',
    ...(job.demand && { demand: job.demand }),
    copies: 'copies' in places ? places.copies : 'on' in places ? [...places.on] : 'all',
    state: stateOf(job),
    verifiedCopies: copiesOf(job).length,
    startsAt: new Date(Math.max(job.atMs, job.createdAtMs)).toISOString(),
    endsAt: new Date(job.endsAtMs).toISOString(),
    acceptedBy: job.acceptedBy,
    keepers: [...job.keepers],
    hosts: job.targets.map((target) => ({ ...target })),
  }
}

/** Peer ids of the hosts that hold all of the image. */
const copiesOf = ({ targets }: SeedJob): string[] =>
  targets.filter((target) => target.extent === 'full' && isCopy(target)).map(({ peer }) => peer)

/** As the last record of the job has it. */
function stateOf(job: SeedJob): SeedJobReport['state'] {
  const { places, targets, extent, cancelled, atMs } = job
  if (cancelled) return 'cancelled'
  if (atMs > Date.now() && targets.length === 0) return 'scheduled'
  const copies = copiesOf(job)
  const here = targets.filter(({ state }) => state !== 'gone')
  const isEverywhere = here.length > 0 && here.every(isCopy)
  if (extent === 'hot' && !isEverywhere) return 'placing'
  if ('all' in places) return isEverywhere ? 'placed' : 'placing'
  const isPlaced =
    'copies' in places ? copies.length >= places.copies : places.on.every((peer) => copies.includes(peer))
  return isPlaced ? 'placed' : 'placing'
}

/** How many images' worth of chunks are verified on the hosts that have most, and how many are wanted. */
function shareOf({ places, targets }: SeedJob, connected: number): { done: number; total: number } {
  const total = 'copies' in places ? places.copies : 'on' in places ? places.on.length : connected
  const shares = targets
    .filter(({ extent, state, total }) => extent === 'full' && state !== 'gone' && total > 0)
    .map(({ verified, total }) => verified / total)
    .toSorted((a, b) => b - a)
  return { done: shares.slice(0, total).reduce((sum, share) => sum + share, 0), total }
}
