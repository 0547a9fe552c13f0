import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { silentLog } from '../../node/base/log.ts'
import { RegionGate } from '../../node/peers/admission/region-gate.ts'
import { openRegionSecret, type RegionSecret } from '../../node/peers/admission/region-keys.ts'
import { createPeerHost } from '../../node/peers/peer-host.ts'

/**
 * A started libp2p host that passes the region gate, and then says what the test makes it say. Each has an identity of
 * its own.
 */
export async function startRawHost({
  secret = openRegionSecret('test'),
  listen = [],
}: { secret?: RegionSecret; listen?: readonly string[] } = {}): Promise<Libp2p> {
  const host = await createRawHost({ secret, listen })
  await host.start()
  return host
}

/** As {@link startRawHost}, for handlers that must be there before it starts. */
export async function createRawHost({
  secret = openRegionSecret('test'),
  listen = [],
  privateKey,
}: { secret?: RegionSecret; listen?: readonly string[]; privateKey?: PrivateKey } = {}): Promise<Libp2p> {
  const gate = new RegionGate({ log: silentLog }, [secret])
  return await createPeerHost(
    { privateKey: privateKey ?? (await generateKeyPair('Ed25519')), gate },
    { listen, isBarred: () => false },
  )
}
