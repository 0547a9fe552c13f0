/** Orders to a stranger. */
export interface StrangerOrders {
  host: string
  port: number
  /** Connections that he opens and says something on. */
  connectionsPerSecond: number
  /** Connections on which he says nothing; he opens as many again as are closed. */
  halfOpen: number
  /** The addresses that he connects from, in turn; empty: the one of his host. */
  sources: string[]
}

/** The results of his orders. */
export interface StrangerCounts {
  opened: number
  /** Connections on which he heard nothing. */
  refused: number
  heardBytes: number
  /** The most that he heard on one connection. */
  longestHeardBytes: number
  heldAtEnd: number
}
