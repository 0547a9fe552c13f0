import type { Statement } from '../../protocol/attestation.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Log } from '../base/log.ts'
import type { Membership } from '../peers/membership.ts'
import type { Lies } from '../publish/lies.ts'
import type { Catalog } from '../store/catalog.ts'

export interface FalseStatementsParts {
  /** This host's peer id. */
  own: string
  catalog: Pick<Catalog, 'images' | 'deleteImage' | 'namePast' | 'deleteNamePast' | 'deleteUnverifiedLayer'>
  lies: Pick<Lies, 'add' | 'isContradicted'>
  membership: Pick<Membership, 'members' | 'ban'>
  log: Log
  /** The clock (ms since 1970). */
  now?: () => number
}

/**
 * Acts on false statements: this host has read the layers of an image, and they make another rootfs than somebody
 * signed.
 */
export class FalseStatements {
  readonly #parts: FalseStatementsParts
  readonly #now: () => number

  constructor(parts: FalseStatementsParts) {
    this.#parts = parts
    this.#now = parts.now ?? Date.now
  }

  /** Whether this host has proved that the image is not this rootfs. */
  isKnown(statement: Statement): boolean {
    return this.#parts.lies.isContradicted(statement)
  }

  /**
   * Forgets all records that stand on the statement, so that the image is resolved and built anew; remembers it, and its
   * maker as a liar; bans him. A host that has only passed the statement on has not lied, and is not banned.
   * @param made the rootfs that the layers make
   */
  async found(record: ImageRecord, made: RootfsManifest): Promise<void> {
    const { own, catalog, lies, log } = this.#parts
    const { manifestDigest, format, rootfsDigest: rootfs, attestation } = record
    const { key: maker, told = false } = attestation
    // First of all: from here on nobody mounts it.
    await lies.add({ manifestDigest, format, rootfsDigest: rootfs, maker, told, foundAtMs: this.#now() })
    for (const stored of await catalog.images()) {
      if (stored.manifestDigest === manifestDigest && stored.format === format && stored.rootfsDigest === rootfs)
        await this.#forget(stored, told ? undefined : maker)
    }
    // The index of a layer that a member told may be the cause, and would be again.
    for (const { diffId } of made.layers) await catalog.deleteUnverifiedLayer(diffId)
    log.error(
      'rootfs of an image is false: its layers make another one; end what runs on it, and find out who its maker is',
      {
        image: record.reference,
        manifest: manifestDigest,
        format,
        rootfs,
        made: rootfsDigest(made),
        maker,
        told,
      },
    )
    if (!told && maker !== own) this.#ban(maker, rootfs)
  }

  /** Deletes a record, but keeps the name's statement if another host than the liar has made it. */
  async #forget(record: ImageRecord, liar: string | undefined): Promise<void> {
    const { catalog } = this.#parts
    await catalog.deleteImage(record)
    const past = await catalog.namePast(record)
    if (past?.nameStatement.key === liar) await catalog.deleteNamePast(record)
  }

  #ban(maker: string, rootfs: Digest): void {
    const { membership } = this.#parts
    const peer = membership.members().find(({ id }) => id === maker)
    if (peer !== undefined)
      membership.ban(
        peer,
        new P2pfsError('invalid', 'peer has signed a rootfs that the layers do not make', { rootfs }),
      )
  }
}
