import { promisify } from 'node:util'
import { zstdCompress, zstdDecompress } from 'node:zlib'
import type { Stream } from '@libp2p/interface'
import {
  encodeBootProfile,
  parseBootProfile,
  type BootProfile,
  type ProfileSubject,
} from '../../../protocol/boot-profile.ts'
import { parseBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeImageRecord,
  parseImageRecord,
  type ImageName,
  type ImageRecord,
} from '../../../protocol/image-record.ts'
import { parseLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import {
  encodeObjectAnswer,
  encodeObjectRequest,
  maxLayerIndexBytes,
  maxObjectBytes,
  maxObjectRequestBytes,
  parseObjectAnswer,
  parseObjectRequest,
  type ObjectRequest,
} from '../../../protocol/messages/object.ts'
import { parseRootfsManifest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { readFrames, writeFrame } from '../frames.ts'

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)

/** What this host can tell others. */
export interface LocalObjects {
  image: (name: ImageName) => Promise<ImageRecord | undefined>
  /** Encoded. */
  rootfs: (digest: Digest) => Promise<Uint8Array | undefined>
  /** Encoded. */
  layer: (diffId: Digest) => Promise<Uint8Array | undefined>
  /** Encoded, zstd. */
  blobMap: (digest: Digest) => Promise<Uint8Array | undefined>
  /** The best there is for that rootfs, of it or of another. */
  profile: (subject: ProfileSubject) => Promise<BootProfile | undefined>
  /** Whether an import of the image with this manifest is under way. */
  importing: (manifestDigest: Digest) => boolean
}

/** Answers the one request of a stream. @throws invalid, unavailable */
export async function serveObject(stream: Stream, local: LocalObjects): Promise<void> {
  for await (const message of readFrames(stream, maxObjectRequestBytes)) {
    await writeFrame(stream, [encodeObjectAnswer(await find(parseObjectRequest(message), local))])
    await stream.close()
    return
  }
}

async function find(request: ObjectRequest, local: LocalObjects): Promise<Uint8Array | undefined> {
  switch (request.kind) {
    case 'image': {
      const record = await local.image(request)
      return record === undefined ? undefined : encodeImageRecord(record)
    }
    case 'rootfs':
      return await local.rootfs(request.digest)
    case 'map':
      return await local.blobMap(request.digest)
    case 'profile': {
      const profile = await local.profile(request)
      return profile === undefined ? undefined : encodeBootProfile(profile)
    }
    case 'import':
      return local.importing(request.digest) ? new Uint8Array(0) : undefined
    case 'layer': {
      const bytes = await local.layer(request.diffId)
      return bytes === undefined ? undefined : await compress(bytes)
    }
  }
}

/** Asks for one object over a stream of its own. @returns undefined where the peer does not have it; @throws invalid, unavailable */
async function ask(stream: Stream, request: ObjectRequest, signal: AbortSignal): Promise<Uint8Array | undefined> {
  const onAbort = (): void => stream.abort(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await writeFrame(stream, [encodeObjectRequest(request)], { signal })
    for await (const message of readFrames(stream, maxObjectBytes)) return parseObjectAnswer(message)
    throw new P2pfsError('unavailable', 'peer closed the stream without an answer')
  } finally {
    signal.removeEventListener('abort', onAbort)
    stream.close().catch(() => undefined)
  }
}

export async function askImage(
  stream: Stream,
  { reference, platform, format }: ImageName,
  signal: AbortSignal,
): Promise<ImageRecord | undefined> {
  const bytes = await ask(stream, { kind: 'image', reference, platform, format }, signal)
  return bytes === undefined ? undefined : parseImageRecord(bytes)
}

/** @throws invalid also where the manifest does not match the digest */
export async function askRootfs(
  stream: Stream,
  digest: Digest,
  signal: AbortSignal,
): Promise<RootfsManifest | undefined> {
  const bytes = await ask(stream, { kind: 'rootfs', digest }, signal)
  if (bytes === undefined) return undefined
  if (digestOf(bytes) !== digest) throw new P2pfsError('invalid', 'peer sent another rootfs manifest', { digest })
  return parseRootfsManifest(bytes)
}

/** @throws invalid also where the index is of another layer */
export async function askLayer(stream: Stream, diffId: Digest, signal: AbortSignal): Promise<LayerIndex | undefined> {
  const bytes = await ask(stream, { kind: 'layer', diffId }, signal)
  if (bytes === undefined) return undefined
  const index = parseLayerIndex(await expand(bytes, 'layer index'))
  if (index.diffId !== diffId) throw new P2pfsError('invalid', 'peer sent the index of another layer', { diffId })
  return index
}

/** @throws invalid also where the map is of another blob. It is believed no further: what is read by it is checked */
export async function askBlobMap(stream: Stream, digest: Digest, signal: AbortSignal): Promise<BlobMap | undefined> {
  const bytes = await ask(stream, { kind: 'map', digest }, signal)
  if (bytes === undefined) return undefined
  const map = parseBlobMap(await expand(bytes, 'blob map'))
  if (map.digest !== digest) throw new P2pfsError('invalid', 'peer sent the map of another blob', { digest })
  return map
}

/** @throws invalid for what is no boot profile. Which rootfs it is of is for the caller to judge */
export async function askProfile(
  stream: Stream,
  { rootfs, sketch }: ProfileSubject,
  signal: AbortSignal,
): Promise<BootProfile | undefined> {
  const bytes = await ask(stream, { kind: 'profile', rootfs, sketch }, signal)
  return bytes === undefined ? undefined : parseBootProfile(bytes)
}

/** Whether the peer is importing the image with this manifest. */
export async function askImporting(stream: Stream, digest: Digest, signal: AbortSignal): Promise<boolean> {
  return (await ask(stream, { kind: 'import', digest }, signal)) !== undefined
}

async function expand(bytes: Uint8Array, what: string): Promise<Uint8Array> {
  try {
    return await decompress(bytes, { maxOutputLength: maxLayerIndexBytes })
  } catch (cause) {
    throw new P2pfsError('invalid', `${what} is not zstd, or too large`, { cause })
  }
}
