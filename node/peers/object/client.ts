import { promisify } from 'node:util'
import { zstdDecompress } from 'node:zlib'
import type { Stream } from '@libp2p/interface'
import { parseBootProfile, type BootProfile, type ProfileSubject } from '../../../protocol/boot-profile.ts'
import { parseBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { parseImageRecord, type ImageName, type ImageRecord } from '../../../protocol/image-record.ts'
import { parseLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import {
  encodeObjectRequest,
  maxLayerIndexBytes,
  maxObjectBytes,
  maxSharedBlobBytes,
  parseObjectAnswer,
  type ObjectRequest,
} from '../../../protocol/messages/object.ts'
import { maxRegistryWordBytes, parseRegistryWord, type RegistryWord } from '../../../protocol/messages/registry-word.ts'
import { parseRootfsManifest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { readFrames, writeFrame } from '../frames.ts'

const decompress = promisify(zstdDecompress)

/** Longest answers of the small kinds (bytes): a record has the image's manifest, which has 4 MiB at most. */
const maxAnswerBytes: Record<ObjectRequest['kind'], number> = {
  image: 8 * 1024 * 1024,
  rootfs: maxObjectBytes,
  layer: maxObjectBytes,
  map: maxObjectBytes,
  profile: 1024 * 1024,
  blob: maxSharedBlobBytes + 1,
  import: 1024,
}

/** A stream to a peer for one question. */
export interface ObjectChannel {
  stream: Stream
  /** Called for each piece of the answer, with its size (bytes). */
  onBytes: (bytes: number) => void
  /** Called when the answer has come whole: what is made of it takes this host's time. */
  onWhole: () => void
  /** Called when the peer says that the answer comes later. */
  onComing: () => void
}

/**
 * Asks for one object over a stream of its own, which it closes.
 * @returns undefined where the peer does not have it
 * @throws invalid, unavailable
 */
async function ask(
  { stream, onBytes, onWhole, onComing }: ObjectChannel,
  request: ObjectRequest,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  const onAbort = (): void => stream.abort(signal.reason as Error)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await writeFrame(stream, [encodeObjectRequest(request)], { signal })
    for await (const message of readFrames(stream, maxAnswerBytes[request.kind], { onBytes })) {
      const answer = parseObjectAnswer(message)
      if (answer !== 'coming') {
        onWhole()
        return answer
      }
      if (request.kind !== 'blob') throw new P2pfsError('invalid', 'peer says of an object that it is coming')
      onComing()
    }
    throw new P2pfsError('unavailable', 'peer closed the stream without an answer')
  } finally {
    signal.removeEventListener('abort', onAbort)
    stream.close().catch(() => undefined)
  }
}

/** The peer's record of the image. @throws invalid, unavailable */
export async function askImage(
  channel: ObjectChannel,
  { reference, platform, format }: ImageName,
  signal: AbortSignal,
): Promise<ImageRecord | undefined> {
  const bytes = await ask(channel, { kind: 'image', reference, platform, format }, signal)
  return bytes === undefined ? undefined : parseImageRecord(bytes)
}

/** The rootfs manifest with this digest. @throws invalid also where it has another one; unavailable */
export async function askRootfs(
  channel: ObjectChannel,
  digest: Digest,
  signal: AbortSignal,
): Promise<RootfsManifest | undefined> {
  const bytes = await ask(channel, { kind: 'rootfs', digest }, signal)
  if (bytes === undefined) return undefined
  if (digestOf(bytes) !== digest) throw new P2pfsError('invalid', 'peer sent another rootfs manifest', { digest })
  return parseRootfsManifest(bytes)
}

/**
 * The index of the layer, which nothing proves.
 * @throws invalid also where it is the index of another layer; unavailable
 */
export async function askLayer(
  channel: ObjectChannel,
  diffId: Digest,
  signal: AbortSignal,
): Promise<LayerIndex | undefined> {
  const bytes = await ask(channel, { kind: 'layer', diffId }, signal)
  if (bytes === undefined) return undefined
  const index = parseLayerIndex(await expand(bytes, 'layer index'))
  if (index.diffId !== diffId) throw new P2pfsError('invalid', 'peer sent the index of another layer', { diffId })
  return index
}

/**
 * The map of the blob. Nothing proves it: all chunks that are read with its help are verified.
 * @throws invalid also where it is the map of another blob; unavailable
 */
export async function askBlobMap(
  channel: ObjectChannel,
  digest: Digest,
  signal: AbortSignal,
): Promise<BlobMap | undefined> {
  const bytes = await ask(channel, { kind: 'map', digest }, signal)
  if (bytes === undefined) return undefined
  const map = parseBlobMap(await expand(bytes, 'blob map'))
  if (map.digest !== digest) throw new P2pfsError('invalid', 'peer sent the map of another blob', { digest })
  return map
}

/**
 * The boot profile of this rootfs, or of another: the caller decides whether it is of use.
 * @throws invalid, unavailable
 */
export async function askProfile(
  channel: ObjectChannel,
  { rootfs, sketch }: ProfileSubject,
  signal: AbortSignal,
): Promise<BootProfile | undefined> {
  const bytes = await ask(channel, { kind: 'profile', rootfs, sketch }, signal)
  return bytes === undefined ? undefined : parseBootProfile(bytes)
}

/**
 * Content that the peer has read from a registry lately, or reads now: a blob or manifest with this digest, or, for another key
 * than a digest of content, what a registry said, which nothing proves.
 * @throws invalid also where content has another digest; unavailable
 */
export async function askBlob(
  channel: ObjectChannel,
  key: Digest,
  { isNamedByDigest }: { isNamedByDigest: boolean },
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  const bytes = await ask(channel, { kind: 'blob', digest: key }, signal)
  if (isNamedByDigest && bytes !== undefined && digestOf(bytes) !== key)
    throw new P2pfsError('invalid', 'peer sent another blob', { digest: key })
  return bytes
}

/** Whether the peer is importing the image with this manifest. @throws invalid, unavailable */
export async function askImporting(
  channel: ObjectChannel,
  manifestDigest: Digest,
  signal: AbortSignal,
): Promise<boolean> {
  return (await ask(channel, { kind: 'import', digest: manifestDigest }, signal)) !== undefined
}

/** Asks the peer for its experience with the registry that has this key. A peer of an earlier version has none. @throws invalid, unavailable */
export async function askRegistryWord(
  channel: ObjectChannel,
  key: Digest,
  signal: AbortSignal,
): Promise<RegistryWord | undefined> {
  const bytes = await ask(channel, { kind: 'import', digest: key }, signal)
  if (bytes !== undefined && bytes.length > maxRegistryWordBytes)
    throw new P2pfsError('invalid', 'peer says more of a registry than there is to say')
  return bytes === undefined ? undefined : parseRegistryWord(bytes)
}

async function expand(bytes: Uint8Array, what: string): Promise<Uint8Array> {
  try {
    return await decompress(bytes, { maxOutputLength: maxLayerIndexBytes })
  } catch (cause) {
    throw new P2pfsError('invalid', `${what} is not zstd, or too large`, { cause })
  }
}
