import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { seedJobId, type SeedImage, type SeedJob, type SeedTarget } from '../../../protocol/seed-job.ts'
import type { PinRecord } from '../../../node/store/pin-record.ts'

export const image: SeedImage = {
  reference: 'host/r:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest: digestOf(Buffer.from('manifest')),
  rootfsDigest: digestOf(Buffer.from('rootfs')),
}

/** A job that nobody has begun, with what the test wants otherwise; its id fits. */
export function makeJob(changes: Partial<SeedJob> = {}): SeedJob {
  const job: SeedJob = {
    ...image,
    id: '',
    extent: 'full',
    places: { copies: 2 },
    createdAtMs: 0,
    atMs: 0,
    endsAtMs: 86_400_000,
    acceptedBy: 'a',
    keepers: ['a', 'b', 'c'],
    revision: 1,
    cancelled: false,
    targets: [],
    ...changes,
  }
  return { ...job, id: seedJobId(job) }
}

export function makeTarget(peer: string, changes: Partial<SeedTarget> = {}): SeedTarget {
  return { peer, name: peer, extent: 'full', state: 'held', held: 4, verified: 4, total: 4, ...changes }
}

export function makeTable(name: string, count: number): ChunkTable {
  const digests = Array.from({ length: count }, (_, i) => digestToBytes(digestOf(Buffer.from(`${name} ${i}`))))
  return new ChunkTable(
    digests.map(() => 4096),
    Buffer.concat(digests),
  )
}

/** The records of jobs and pins of one host, which outlive its process. */
export class FakeCatalog {
  readonly jobs = new Map<string, SeedJob>()
  readonly records = new Map<string, PinRecord>()

  readonly seedJobs = async (): Promise<SeedJob[]> => await Promise.resolve([...this.jobs.values()])
  readonly putSeedJob = async (job: SeedJob): Promise<void> => void (await Promise.resolve(this.jobs.set(job.id, job)))
  readonly deleteSeedJob = async (id: string): Promise<void> => void (await Promise.resolve(this.jobs.delete(id)))
  readonly pins = async (): Promise<PinRecord[]> => await Promise.resolve([...this.records.values()])
  readonly putPin = async (pin: PinRecord): Promise<void> =>
    void (await Promise.resolve(this.records.set(`${pin.job} ${pin.rootfsDigest}`, pin)))
  readonly deletePin = async ({ job, rootfsDigest }: { job: string; rootfsDigest: Digest }): Promise<void> =>
    void (await Promise.resolve(this.records.delete(`${job} ${rootfsDigest}`)))
  readonly rootfs = async (): Promise<undefined> => await Promise.resolve(undefined)
}
