import type { Digest } from '../../protocol/digest.ts'
import type { SeedJobReport, Status } from '../control/api.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { ListSeedsOperation } from '../operations/seed-job.ts'
import type { StatusOperation } from '../operations/status.ts'
import type { PeerNetwork } from '../peers/network.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Room } from '../store/disk-room.ts'
import { historyStepMs, type ByteHistory } from './byte-history.ts'
import type { Readiness } from './readiness.ts'

export interface PageViewParts {
  status: Pick<StatusOperation, 'run'>
  seeds: Pick<ListSeedsOperation, 'run'>
  network: Pick<PeerNetwork, 'membership'>
  catalog: Pick<Catalog, 'rootfs'>
  history: Pick<ByteHistory, 'rates'>
  readiness: Pick<Readiness, 'reason'>
  /** The room on the filesystem of the store. */
  room: () => Promise<Room>
}

/** Rows of each table; the page says how many more there are. */
const maxRows = 100
/** Hosts that are named for an image or a seed. */
const maxHosts = 8

/** Members are asked for the seeds of the region this often (ms), and only while somebody looks. */
const seedsMs = 15_000

/** How much of an image a host says that it holds, from 0 to 1. */
interface Share {
  name: string
  share: number
}

/**
 * Makes the data of the status page. Everybody who reaches the port sees it, so each field is chosen here: a new field
 * of `status` is not shown by itself.
 */
export class PageView {
  readonly #parts: PageViewParts
  readonly #now: () => number
  /** The seeds of the region as they were told last; undefined until they are. */
  #seeds: readonly SeedJobReport[] | undefined
  #askedAtMs = -Infinity

  constructor(parts: PageViewParts, { now = () => performance.now() }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#now = now
  }

  async make({ signal }: { signal: AbortSignal }): Promise<object> {
    const { history, readiness, room } = this.#parts
    this.#askForSeeds(signal)
    const [status, { freeBytes, sizeBytes }] = await Promise.all([this.#parts.status.run(), room()])
    const { name, region, version, uptimeSeconds, members, chunks, served, fetched, sent, readErrors } = status
    const open = (this.#seeds ?? []).filter(({ state }) => state !== 'cancelled')
    return {
      at: new Date().toISOString(),
      host: { name, region, version, uptimeSeconds, peer: status.peerId, notReady: readiness.reason },
      counts: {
        members,
        hosts: status.peers.length,
        images: status.images.length,
        mounts: status.mounts.length,
        seeds: open.length,
        chunks,
        readErrors,
      },
      disk: { freeBytes, sizeBytes },
      totals: {
        read: bytesOf(served),
        fetched: bytesOf(fetched),
        sent: sent.bytes,
      },
      history: { stepSeconds: historyStepMs / 1000, ...history.rates() },
      waiting: waitingOf(status),
      hosts: status.peers.slice(0, maxRows).map(hostOf),
      images: await this.#images(status),
      mounts: status.mounts.slice(0, maxRows).map(mountOf),
      imports: status.imports.slice(0, maxRows).map(({ reference, doneBytes, totalBytes, forPeers }) => ({
        reference,
        doneBytes,
        totalBytes,
        forPeers,
      })),
      seeds: this.#seeds && open.slice(0, maxRows).map(seedOf),
    }
  }

  /** Nobody waits for the answer: a member may be silent. */
  #askForSeeds(signal: AbortSignal): void {
    if (this.#now() - this.#askedAtMs < seedsMs) return
    this.#askedAtMs = this.#now()
    this.#parts.seeds
      .run({}, { signal })
      .then(({ seeds }) => (this.#seeds = seeds))
      .catch(() => undefined)
  }

  async #images({ images, mounts, pins }: Status): Promise<object[]> {
    const rows: object[] = []
    const mounted = new Set(mounts.map(({ digest }) => digest))
    const pinned = new Set(pins.map(({ digest }) => digest))
    const isUsed = ({ digest }: { digest: string }): boolean => mounted.has(digest) || pinned.has(digest)
    // Those that are in use come first: of many, the others are left off.
    const shown = [...images.filter(isUsed), ...images.filter((image) => !isUsed(image))].slice(0, maxRows)
    for (const { reference, platform, format, digest, sizeBytes, localBytes } of shown) {
      const shares = await this.#sharesOf(digest as Digest)
      rows.push({
        reference,
        platform,
        format,
        sizeBytes,
        localBytes,
        isMounted: mounted.has(digest),
        isPinned: pinned.has(digest),
        wholeOn: shares.filter(({ share }) => share === 1).length,
        partlyOn: shares.filter(({ share }) => share < 1).length,
        hosts: shares.slice(0, maxHosts),
      })
    }
    return rows
  }

  /** The shares of a rootfs that the connected members say they hold, the largest first. */
  async #sharesOf(rootfs: Digest): Promise<Share[]> {
    const manifest = await this.#parts.catalog.rootfs(rootfs)
    if (manifest === undefined) return []
    const tables = tablesOf(manifest)
    const chunks = tables.reduce((sum, { count }) => sum + count, 0)
    return this.#parts.network.membership
      .members()
      .map(({ id, hello: { name }, holdings }) => {
        const held = tables.reduce((sum, table) => sum + Math.min(holdings.countOf(table.id), table.count), 0)
        return { name: name || id, share: chunks === 0 ? 0 : held / chunks }
      })
      .filter(({ share }) => share > 0)
      .toSorted((a, b) => b.share - a.share)
  }
}

function bytesOf<Of extends string>(amounts: Record<Of, { bytes: number }>): Record<Of, number> {
  return Object.fromEntries(Object.entries<{ bytes: number }>(amounts).map(([of, { bytes }]) => [of, bytes])) as Record<
    Of,
    number
  >
}

function waitingOf({ waitingReads: { count, slow, longest } }: Status): object {
  return {
    count,
    slow,
    longest: longest.map(({ images, rootfs, waitedSeconds, failsInSeconds, asked, refusals, registry, failure }) => ({
      image: images.join(', ') || rootfs,
      waitedSeconds,
      failsInSeconds,
      asked: [...asked.map(({ name, peer }) => name ?? peer), ...(registry === 'asked' ? ['the registry'] : [])],
      refusals: [
        ...refusals.map(({ name, peer, code }) => `${name ?? peer}: ${code}`),
        ...(registry === undefined || registry === 'asked' ? [] : [`registry: ${registry}`]),
        ...(failure === undefined ? [] : [`last try: ${failure}`]),
      ],
    })),
  }
}

function hostOf({ name, peer, connectedSeconds, received, sent, bulk }: Status['peers'][number]): object {
  return { name: name || peer, peer, connectedSeconds, receivedBytes: received.bytes, sentBytes: sent.bytes, bulk }
}

function mountOf(mount: Status['mounts'][number]): object {
  const { directory, reference, format, as, writable, reads, mountedAt, sizeBytes, localBytes, warnings } = mount
  return {
    directory,
    reference,
    format,
    as,
    writable,
    reads,
    mountedAt,
    sizeBytes,
    localBytes,
    fetched: bytesOf(mount.fetched),
    warnings: mount.contradicted === true ? ['contradicted', ...warnings] : warnings,
  }
}

function seedOf({ reference, state, verifiedCopies, copies, hot, demand, hosts, endsAt }: SeedJobReport): object {
  return {
    reference,
    state,
    verifiedCopies,
    copies: Array.isArray(copies) ? copies.length : copies,
    isHot: hot,
    isByDemand: demand !== undefined,
    endsAt,
    hostCount: hosts.length,
    hosts: hosts.slice(0, maxHosts).map(({ name, peer, state, held, total, code }) => ({
      name: name || peer,
      state,
      share: total === 0 ? 0 : held / total,
      ...(code !== undefined && { code }),
    })),
  }
}
