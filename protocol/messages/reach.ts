import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { P2pfsError } from '../errors.ts'

/** One request per stream, and one answer: whether the asker's ports can be reached from outside. */
export const reachProtocol = '/p2pfs/reach/1'

/** A host listens on few ports. */
export const maxReachPorts = 4
/** More than any message takes (bytes). */
export const maxReachMessageBytes = 256

export interface ReachAnswer {
  /** The answerer's clock (ms since 1970). */
  timeMs: number
  /** The IP address that the asker's connection comes from. */
  address: string
  /** For each port, in order, whether a TCP connection to that address came about. */
  reached: boolean[]
}

/** SPEC.md, "Reach protocol". */
export function encodeReachRequest(ports: readonly number[]): Uint8Array {
  return encodeCbor({ ports })
}

/** @throws invalid */
export function parseReachRequest(bytes: Uint8Array): number[] {
  const ports = new Fields(parseCbor(bytes, 'reach request'), 'reach request').list('ports')
  if (ports.length === 0 || ports.length > maxReachPorts || !ports.every(isPort))
    throw new P2pfsError('invalid', `reach request names other than 1 to ${maxReachPorts} ports`)
  return ports
}

export function encodeReachAnswer({ timeMs, address, reached }: ReachAnswer): Uint8Array {
  return encodeCbor({ timeMs, address, reached })
}

/** @throws invalid */
export function parseReachAnswer(bytes: Uint8Array, ports: number): ReachAnswer {
  const fields = new Fields(parseCbor(bytes, 'reach answer'), 'reach answer')
  const reached = fields.list('reached')
  if (reached.length !== ports || !reached.every((each) => typeof each === 'boolean'))
    throw new P2pfsError('invalid', 'reach answer is not about the ports of the request')
  return { timeMs: fields.unsigned('timeMs'), address: fields.text('address'), reached }
}

const isPort = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value < 65_536
