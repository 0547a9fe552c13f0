import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import { digestOf, type Digest } from '../digest.ts'
import { P2pfsError } from '../errors.ts'

/** The experience of a member with a registry. */
export interface RegistryWord {
  /** Whether it has not answered the member lately. */
  isSilent: boolean
  /** How long the registry takes to begin an answer, at most as a rule (ms); undefined where the member has seen none. */
  usualMs: number | undefined
}

/** Longest word (bytes). */
export const maxRegistryWordBytes = 64
/** No answer takes longer (ms): what is more is a lie, or of no use. */
const maxUsualMs = 60_000

/** The key under which members are asked about a registry, HOST or HOST:PORT: see SPEC.md, "Object protocol". */
export function registryKey(registry: string): Digest {
  return digestOf(Buffer.from(`registry ${registry}`))
}

export function encodeRegistryWord({ isSilent, usualMs }: RegistryWord): Uint8Array {
  return encodeCbor({
    silent: isSilent,
    ...(usualMs !== undefined && { usualMs: Math.min(maxUsualMs, Math.ceil(usualMs)) }),
  })
}

/** @throws invalid */
export function parseRegistryWord(bytes: Uint8Array): RegistryWord {
  const fields = new Fields(parseCbor(bytes, 'registry word'), 'registry word')
  const silent = fields.get('silent')
  if (typeof silent !== 'boolean') throw new P2pfsError('invalid', 'registry word: silent is neither true nor false')
  const usualMs = fields.get('usualMs') === undefined ? undefined : fields.unsigned('usualMs', maxUsualMs)
  return { isSilent: silent, usualMs }
}
