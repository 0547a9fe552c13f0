/** How a bad member answers requests for chunks. */
export type ChunkConduct = 'silent' | 'missing' | 'wrong' | 'short' | 'drip'
/** How he answers requests for objects. `lie`: with a record of his own making, which names another image's rootfs. */
export type ObjectConduct = 'silent' | 'missing' | 'garbage' | 'oversize' | 'drip' | 'lie'
/** How he answers a request for an import. `stall`: with signs of life, and nothing else. */
export type ImportConduct = 'silent' | 'refuse' | 'garbage' | 'stall'
/** Messages that he sends without being asked, as many as he can. */
export type Flood = 'members' | 'haves' | 'queries' | 'objects' | 'wants' | 'unread'

/** Orders to a bad member. He has the region's key, and may have many identities. */
export interface MemberOrders {
  region: string
  /** Multiaddrs of the daemons that each identity connects to. */
  targets: string[]
  identities: number
  /** Whether he says that he holds every chunk of every segment that he hears of. */
  claimsAll: boolean
  chunks: ChunkConduct
  objects: ObjectConduct
  imports: ImportConduct
  floods: Flood[]
  /** Multiaddrs that he says other members have, for hosts to dial. */
  hints: string[]
  /** The image whose rootfs he passes off as that of others, for `lie`. */
  passedOff?: string
}

/** The results of his orders. */
export interface MemberCounts {
  /** Identities that were connected at the start, and at the end. */
  connected: number
  connectedAtEnd: number
  /** Requests that he got. */
  wants: number
  objectRequests: number
  importRequests: number
  queries: number
  /** Claims of segments that he made. */
  claims: number
  /** Messages of his floods. */
  flooded: number
}
