import { createHmac, timingSafeEqual } from 'node:crypto'
import type { RegionSecret } from './region-keys.ts'

/** Random bytes that each side contributes to one handshake, so that no proof is of use in another. */
export const nonceBytes = 32
/** Bytes of a proof: one HMAC-SHA256. */
export const proofBytes = 32

/** The nonces of one handshake. */
export interface Nonces {
  listener: Uint8Array
  dialler: Uint8Array
}

/** The proof of the side that opened the connection; SPEC.md, "Region key and admission". */
export function diallerProof(secret: RegionSecret, nonces: Nonces): Uint8Array {
  return mac(secret, 'p2pfs dialler 1', nonces)
}

/** The proof of the side that accepted the connection. */
export function listenerProof(secret: RegionSecret, nonces: Nonces): Uint8Array {
  return mac(secret, 'p2pfs listener 1', nonces)
}

/**
 * The prologue of the noise handshake that follows. Noise mixes it into what both sides authenticate, so the handshake
 * fails for everybody but the two who have proved the secret: nobody can pass on their proofs and talk in their place.
 */
export function noisePrologue(secret: RegionSecret, nonces: Nonces): Uint8Array {
  return mac(secret, 'p2pfs noise 1', nonces)
}

/** Whether two proofs are equal; takes as long whether they are or not. */
export function isSameProof(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

function mac(secret: RegionSecret, purpose: string, { listener, dialler }: Nonces): Uint8Array {
  return createHmac('sha256', secret).update(purpose).update(listener).update(dialler).digest()
}
