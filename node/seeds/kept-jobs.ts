import { P2pfsError } from '../../protocol/errors.ts'
import { newerJob, seedJobId, type SeedJob } from '../../protocol/seed-job.ts'
import type { Catalog } from '../store/catalog.ts'
import { seedLimits, type SeedLimits } from './seed-limits.ts'

export interface KeptJobsParts {
  /** Peer id of this host. */
  own: string
  catalog: Pick<Catalog, 'seedJobs' | 'putSeedJob' | 'deleteSeedJob'>
  /** Milliseconds since 1970. */
  today: () => number
}

type JobLimits = Pick<SeedLimits, 'jobs' | 'jobsPerPeer' | 'ttlMs' | 'clockSkewMs'>

/** The jobs that this host keeps, in the catalog too: its operator's, and those that members have it keep. */
export class KeptJobs {
  readonly #parts: KeptJobsParts
  readonly #limits: JobLimits
  readonly #jobs = new Map<string, SeedJob>()
  /** The peer that had this host keep each job. For a job of an earlier process, it is the host that took the order. */
  readonly #senders = new Map<string, string>()

  constructor(parts: KeptJobsParts, limits: JobLimits = seedLimits) {
    this.#parts = parts
    this.#limits = limits
  }

  /** Reads the jobs in the catalog. */
  async open(): Promise<void> {
    for (const job of await this.#parts.catalog.seedJobs()) {
      this.#jobs.set(job.id, job)
      this.#senders.set(job.id, job.acceptedBy)
    }
  }

  list(): SeedJob[] {
    return [...this.#jobs.values()]
  }

  get(id: string): SeedJob | undefined {
    return this.#jobs.get(id)
  }

  /**
   * Keeps a record that this host has made.
   * @param options `sync`: whether it must be on the disk before this resolves
   * @throws busy where its operator has too many jobs
   */
  async put(job: SeedJob, { sync = false }: { sync?: boolean } = {}): Promise<void> {
    if (!this.#jobs.has(job.id)) this.#checkCount(this.#parts.own)
    await this.#store(job, this.#senders.get(job.id) ?? this.#parts.own, { sync })
  }

  /**
   * Keeps a record that a member sends, unless a newer one is here.
   * @returns the newest record of the job
   * @throws busy where a bound is reached; denied for an order that is not what its id says, or for another host, or
   * from a wrong time; conflict where its time is over
   */
  async keep(job: SeedJob, sender: string): Promise<SeedJob> {
    const { own } = this.#parts
    const before = this.#jobs.get(job.id)
    this.#check(job)
    const newest = before === undefined ? job : newerJob(before, job)
    if (newest === before) return before
    if (!job.keepers.includes(own)) {
      if (before === undefined) throw new P2pfsError('denied', 'the job is not for this host to keep')
      await this.#drop(job.id)
      return job
    }
    if (before === undefined) this.#checkCount(sender)
    // Others must have it before this host is lost; what it has got to, they ask the targets for.
    await this.#store(job, this.#senders.get(job.id) ?? sender, { sync: before === undefined })
    return job
  }

  /** Forgets the jobs whose time is over. */
  async expire(): Promise<void> {
    const nowMs = this.#parts.today()
    for (const { id, endsAtMs } of this.list()) if (endsAtMs <= nowMs) await this.#drop(id)
  }

  #check(job: SeedJob): void {
    const { ttlMs, clockSkewMs } = this.#limits
    const nowMs = this.#parts.today()
    if (job.id !== seedJobId(job)) throw new P2pfsError('denied', 'the job has the id of another one')
    if (job.createdAtMs > nowMs + clockSkewMs || job.endsAtMs > nowMs + ttlMs + clockSkewMs)
      throw new P2pfsError('denied', 'the job is from a time to come, or lasts too long')
    if (job.endsAtMs <= nowMs) throw new P2pfsError('conflict', 'the time of the job is over')
  }

  /** Jobs of this host's operator have room of their own. */
  #checkCount(sender: string): void {
    const { jobs, jobsPerPeer } = this.#limits
    const { own } = this.#parts
    const senders = [...this.#senders.values()]
    const ofSender = senders.filter((other) => other === sender).length
    const isFull =
      sender === own
        ? ofSender >= jobs
        : ofSender >= jobsPerPeer || senders.filter((other) => other !== own).length >= jobs
    if (isFull) throw new P2pfsError('busy', 'this host keeps enough seed jobs; p2pfs seeds cancel ID ends one')
  }

  async #store(job: SeedJob, sender: string, options: { sync: boolean }): Promise<void> {
    this.#jobs.set(job.id, job)
    this.#senders.set(job.id, sender)
    await this.#parts.catalog.putSeedJob(job, options)
  }

  async #drop(id: string): Promise<void> {
    this.#jobs.delete(id)
    this.#senders.delete(id)
    await this.#parts.catalog.deleteSeedJob(id)
  }
}
