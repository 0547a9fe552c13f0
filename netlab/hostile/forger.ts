import { randomBytes } from 'node:crypto'
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { askImage, askRootfs, type ObjectChannel } from '../../node/peers/object/client.ts'
import { attest } from '../../protocol/attestation.ts'
import { encodeBootProfile } from '../../protocol/boot-profile.ts'
import { digestFromBytes, type Digest } from '../../protocol/digest.ts'
import { encodeImageRecord, type ImageName, type ImageRecord } from '../../protocol/image-record.ts'
import { objectProtocol, type ObjectRequest } from '../../protocol/messages/object.ts'
import { stateName } from '../../protocol/name-statement.ts'
import { encodeRootfsManifest } from '../../protocol/rootfs-manifest.ts'

/** How far his statements are ahead of the time (ms): they are newer than all others, and not too new to be believed. */
const aheadMs = 60_000
/** Chunks of a forged boot profile: as many as one may name. */
const profileChunks = 8192

/**
 * Makes lies of what honest hosts say: for every image a record of his own, which names the rootfs of another image;
 * boot profiles of chunks that do not exist.
 */
export class Forger {
  readonly #target: string
  readonly #passedOff: string | undefined
  /** Chunks that exist, for requests that take work. */
  readonly chunks = new Set<Digest>()

  /** @param options `target`: an honest host that is asked; `passedOff`: the image whose rootfs is named everywhere */
  constructor({ target, passedOff }: { target: string; passedOff?: string }) {
    this.#target = target
    this.#passedOff = passedOff
  }

  /** The answer to a request, encoded; undefined where he has no lie for it. */
  async answer(request: ObjectRequest, host: Libp2p, key: PrivateKey): Promise<Uint8Array | undefined> {
    switch (request.kind) {
      case 'image': {
        const record = await this.#forge(request, host, key)
        return record === undefined ? undefined : encodeImageRecord(record)
      }
      case 'rootfs': {
        const manifest = await this.#ask(
          host,
          async (channel, signal) => await askRootfs(channel, request.digest, signal),
        )
        return manifest === undefined ? undefined : encodeRootfsManifest(manifest)
      }
      case 'profile': {
        const chunks = Array.from({ length: profileChunks }, () => digestFromBytes(randomBytes(32), 0))
        return encodeBootProfile({ rootfs: request.rootfs, sketch: request.sketch, seconds: 5, chunks })
      }
      case 'import':
        // Says that he is importing every image.
        return new Uint8Array(0)
      case 'layer':
      case 'map':
      case 'blob':
        return randomBytes(4096)
    }
  }

  /** Learns of chunks that the image has. */
  async learnChunks(name: ImageName, host: Libp2p): Promise<void> {
    const record = await this.#ask(host, async (channel, signal) => await askImage(channel, name, signal))
    if (record === undefined) return
    const manifest = await this.#ask(
      host,
      async (channel, signal) => await askRootfs(channel, record.rootfsDigest, signal),
    )
    for (const { chunks } of manifest?.layers ?? [])
      for (let i = 0; i < chunks.count; i++) this.chunks.add(chunks.digestAt(i))
  }

  async #forge(
    { reference, platform, format }: ImageName,
    host: Libp2p,
    key: PrivateKey,
  ): Promise<ImageRecord | undefined> {
    const name = { reference, platform, format }
    const passedOff = { ...name, reference: this.#passedOff ?? reference }
    const other = await this.#ask(host, async (channel, signal) => await askImage(channel, passedOff, signal))
    if (other === undefined) return undefined
    // An honest host may have the registry's statement of the name: then only the rootfs is a lie.
    const honest = await this.#ask(host, async (channel, signal) => await askImage(channel, name, signal))
    const { manifest, manifestDigest } = honest ?? other
    const { rootfsDigest } = other
    const signer = { key: host.peerId.toString(), sign: async (bytes: Uint8Array) => await key.sign(bytes) }
    return {
      ...name,
      manifest,
      manifestDigest,
      rootfsDigest,
      attestation: await attest({ manifestDigest, format, rootfsDigest }, signer),
      nameStatement: await stateName({ reference, platform, manifestDigest }, Date.now() + aheadMs, signer),
    }
  }

  async #ask<T>(
    host: Libp2p,
    question: (channel: ObjectChannel, signal: AbortSignal) => Promise<T>,
  ): Promise<T | undefined> {
    const signal = AbortSignal.timeout(5_000)
    try {
      const stream = await host.dialProtocol(multiaddr(this.#target), objectProtocol, { signal })
      return await question(
        { stream, onBytes: () => undefined, onWhole: () => undefined, onComing: () => undefined },
        signal,
      )
    } catch {
      return undefined
    }
  }
}
