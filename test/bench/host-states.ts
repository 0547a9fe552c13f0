import { closeSync, mkdirSync, openSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { silentLog } from '../../node/base/log.ts'
import { loadIdentity } from '../../node/peers/identity.ts'
import { statePaths } from '../../node/state-directory.ts'
import { Catalog } from '../../node/store/catalog.ts'
import { ChunkStore } from '../../node/store/chunk-store.ts'
import { attest, type Signer } from '../../protocol/attestation.ts'
import { chunkFile } from '../../protocol/chunk-file.ts'
import { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestBytes, digestOf } from '../../protocol/digest.ts'
import { stateName } from '../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { createRandom } from '../support/random.ts'
import { reserve } from '../support/stores.ts'

/** The images of a host: the same numbers make the same images. */
export interface HostState {
  images: number
  /** Layers that images share; each image has {@link HostState.layersPerImage} of them, in turn. */
  sharedLayers: number
  chunksPerLayer: number
  layersPerImage: number
  /** Chunks of the layer that an image has for itself; 0: it has none. */
  ownChunks: number
  metadataChunks: number
  /** The size of every chunk. */
  chunkBytes: number
  /** Whether the chunk files are there. They are empty: only their names count. */
  isHeld: boolean
}

const platform = 'linux/amd64'

/** The name of an image of a {@link HostState}. */
export function imageName(index: number): string {
  return `local:image-${index}`
}

function randomTable(random: ReturnType<typeof createRandom>, count: number, chunkBytes: number): ChunkTable {
  return new ChunkTable(new Float64Array(count).fill(chunkBytes), new Uint8Array(random.bytes(count * digestBytes)))
}

/** Puts a catalog and the names of chunk files into an empty state directory. */
export async function writeHostState(stateDir: string, state: HostState): Promise<void> {
  const { images, sharedLayers, chunksPerLayer, layersPerImage, ownChunks, metadataChunks, chunkBytes } = state
  const paths = statePaths(stateDir)
  await mkdir(stateDir, { recursive: true, mode: 0o700 })
  const key = await loadIdentity(paths.identity)
  const signer: Signer = {
    key: peerIdFromPrivateKey(key).toString(),
    sign: async (bytes) => await key.sign(bytes),
  }
  // A store that was closed is not in doubt when it is opened again.
  await mkdir(paths.chunks, { mode: 0o700 })
  await using _ = await ChunkStore.open({ log: silentLog, reserve }, { directory: paths.chunks })
  await using catalog = await Catalog.open({ reserve, log: silentLog }, { directory: paths.catalog })
  const random = createRandom(1)
  const hold = (table: ChunkTable): void => {
    if (!state.isHeld) return
    for (let i = 0; i < table.count; i++) closeSync(openSync(chunkFile(paths.chunks, table.digestAt(i)), 'w', 0o600))
  }
  for (let i = 0; i < 256; i++) mkdirSync(`${paths.chunks}/${i.toString(16).padStart(2, '0')}`, { recursive: true })
  const layerOf = (count: number) => {
    const chunks = randomTable(random, count, chunkBytes)
    hold(chunks)
    return { diffId: digestOf(chunks.digests), chunks }
  }
  const shared = Array.from({ length: sharedLayers }, () => layerOf(chunksPerLayer))
  for (let i = 0; i < images; i++) {
    const layers = Array.from({ length: layersPerImage }, (_layer, j) => shared[(i + j) % sharedLayers]!)
    if (ownChunks > 0) layers.push(layerOf(ownChunks))
    const metadata = randomTable(random, metadataChunks, chunkBytes)
    hold(metadata)
    const rootfs: RootfsManifest = { format: 'ext4', metadata, layers, config: '{}' }
    const manifest = JSON.stringify({ schemaVersion: 2, image: i })
    const name = { reference: imageName(i), platform, format: 'ext4' as const }
    const claim = { ...name, manifestDigest: digestOf(Buffer.from(manifest)), rootfsDigest: rootfsDigest(rootfs) }
    await catalog.putRootfs(rootfs)
    await catalog.putImage({
      ...claim,
      manifest,
      attestation: await attest(claim, signer),
      nameStatement: await stateName(claim, Date.now(), signer),
    })
  }
}
