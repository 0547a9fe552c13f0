import type { Urgency } from '../base/urgency.ts'
import type { ChunkRequest, Delivery, FetchPriority } from '../model/chunk-request.ts'
import type { StreamClass } from '../peers/chunk/client.ts'
import type { PeerStanding } from '../peers/peer-standing.ts'

/** A member to which a steward has sent this host. */
export interface Reader {
  id: string
  /** How deep this host is below it in the span's tree of relays. */
  depth: number
  standing: PeerStanding
}

export interface AskOptions {
  signal: AbortSignal
  streamClass: StreamClass
  urgency: Urgency
  priority: FetchPriority
  /** Whether the holder is to serve it in its turn, rather than name others. */
  waits: boolean
  /** Whether another holder that has too much to serve has named this one. */
  isNamed: boolean
}

/** The holders as one fetch needs them. */
export interface Holders {
  next: (
    request: ChunkRequest,
    except: ReadonlySet<string>,
    named: ReadonlySet<string>,
  ) => { id: string; standing: PeerStanding; underWayBytes: number } | undefined
  ask: (id: string, request: ChunkRequest, options: AskOptions) => Promise<Delivery>
  /** Undefined where it is not connected. */
  standing: (id: string) => PeerStanding | undefined
  meet: (id: string, options: { signal: AbortSignal }) => Promise<boolean>
  reader: (request: ChunkRequest) => Reader | 'registry' | undefined
  findReader: (request: ChunkRequest, urgency: Urgency) => Promise<void>
  askReader: (
    reader: Reader,
    request: ChunkRequest,
    options: { signal: AbortSignal; urgency: Urgency; priority: FetchPriority; onComing: () => void },
  ) => Promise<Delivery>
  comingMs: number
  usualMs: (streamClass: StreamClass) => number
  countDemand: () => void
  mayAskAgain: () => boolean
  mayPassOver: () => boolean
  isBusyWithEarlier: (id: string, streamClass: StreamClass, askedAtMs: number) => boolean
}
