import type { Statement } from '../../protocol/attestation.ts'
import { Fields } from '../../protocol/cbor.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { parseRootfsFormat } from '../../protocol/rootfs-manifest.ts'

/** A signed statement of which this host has proved, from the layers, that it is false. */
export interface LieRecord extends Statement {
  /** Peer id of its maker. */
  maker: string
  /** Whether the maker said that he had not read all layers. */
  told: boolean
  /** The time at which it was proved (ms since 1970). */
  foundAtMs: number
}

/** The stored form: JSON. */
export function encodeLieRecord(record: LieRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record))
}

/** @throws invalid */
export function parseLieRecord(bytes: Uint8Array): LieRecord {
  const fields = new Fields(parseJson(bytes), 'lie record')
  return {
    manifestDigest: fields.digest('manifestDigest'),
    format: parseRootfsFormat(fields.get('format')),
    rootfsDigest: fields.digest('rootfsDigest'),
    maker: fields.text('maker'),
    told: fields.get('told') === true,
    foundAtMs: fields.unsigned('foundAtMs'),
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString()) as unknown
  } catch (cause) {
    throw new P2pfsError('invalid', `lie record: ${(cause as Error).message}`, { cause })
  }
}
