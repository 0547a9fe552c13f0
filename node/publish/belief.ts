import type { Attestation, Statement } from '../../protocol/attestation.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { IndexBelief, NameBelief } from '../model/belief.ts'

/*

 * The rules of belief. docs/operating.md, "Trust", has them as a table, and each row of it is a test. They are not asked about
 * the answers of a registry, nor about a rootfs that this host has built of a registry's layers: both are believed.
 */

/** The relation of the owner of a key to this host at this moment. `stranger`: neither listed nor a member. */
export type Standing = 'own' | 'listed' | 'member' | 'stranger' | 'liar'

/** The knowledge that a host has of a name before it judges the words of others about it. */
export interface NamePast {
  /** Time of the newest statement that this host has accepted for the name (ms since 1970). */
  statedAtMs: number
  manifestDigest: Digest
  /** Whether it is this host's own: the registry answered it, or the image was made here. */
  isOwn: boolean
}

/**
 * How far the clock of another host may be ahead of this one's (ms): hosts without time synchronisation drift by minutes
 * in months. A statement from further in the future could never be superseded.
 */
export const maxClockSkewMs = 5 * 60_000

export type NameRefusal = 'liar' | 'key not listed' | 'not a member' | 'older' | 'in the future' | 'past goes first'
export type IndexRefusal = 'liar' | 'key not listed' | 'not a member' | 'told layers'

export type Verdict<Belief, Refusal> = { believed: Belief } | { refused: Refusal }

/**
 * Whether a signed statement says what a name stands for, where the registry does not answer or is not asked.
 * @param by what the host that states it is to this one; whoever passes it on does not matter
 * @param options `areKeysListed`: whether the operator lists keys; `nowMs`: the clock (ms since 1970)
 */
export function judgeName(
  by: Standing,
  { statedAtMs, manifestDigest }: { statedAtMs: number; manifestDigest: Digest },
  { areKeysListed, nowMs, past }: { areKeysListed: boolean; nowMs: number; past: NamePast | undefined },
): Verdict<NameBelief, NameRefusal> {
  if (past?.isOwn === true && past.manifestDigest === manifestDigest) return { believed: 'own-past' }
  if (by === 'liar') return { refused: 'liar' }
  if (statedAtMs > nowMs + maxClockSkewMs) return { refused: 'in the future' }
  if (past !== undefined && statedAtMs < past.statedAtMs) return { refused: 'older' }
  if (by === 'own') return { believed: 'own-past' }
  if (by === 'listed') return { believed: 'listed-key' }
  if (areKeysListed) return { refused: 'key not listed' }
  if (by === 'stranger') return { refused: 'not a member' }
  return past?.isOwn === true ? { refused: 'past goes first' } : { believed: 'member' }
}

/**
 * Whether a signed statement says which rootfs an image is.
 * @param by what its maker is to this host; whoever passes it on does not matter
 * @param basis `told`: whether the maker says that he has not read all layers
 */
export function judgeIndex(
  by: Standing,
  { told = false }: { told?: boolean | undefined },
  { areKeysListed }: { areKeysListed: boolean },
): Verdict<IndexBelief, IndexRefusal> {
  if (by === 'liar') return { refused: 'liar' }
  if (told && areKeysListed) return { refused: 'told layers' }
  if (by === 'own') return { believed: told ? 'told-layers' : 'built' }
  if (by === 'listed') return { believed: 'listed-key' }
  if (areKeysListed) return { refused: 'key not listed' }
  return by === 'stranger' ? { refused: 'not a member' } : { believed: 'member' }
}

/** A statement about a rootfs, with its signature. */
export type SignedStatement = Statement & { attestation: Attestation }

/** Statements that contradict each other: at least two. */
export type Dispute<T extends SignedStatement> = readonly T[]

/**
 * Sorts out statements that are believed on the word of members and disagree about the rootfs of one image manifest and
 * format: none of them is believed.
 */
export function settle<T extends SignedStatement>(
  believed: readonly { claim: T; belief: IndexBelief }[],
): { undisputed: T[]; disputes: Dispute<T>[] } {
  const byImage = Map.groupBy(believed, ({ claim }) => imageOf(claim))
  const undisputed: T[] = []
  const disputes: Dispute<T>[] = []
  for (const statements of byImage.values()) {
    const sure = statements.filter(({ belief }) => belief === 'built' || belief === 'listed-key')
    const kept = (sure.length > 0 ? sure : statements).map(({ claim }) => claim)
    if (sure.length === 0 && new Set(kept.map(({ rootfsDigest }) => rootfsDigest)).size > 1) disputes.push(kept)
    else undisputed.push(...kept)
  }
  return { undisputed, disputes }
}

/** Equal for statements about the same image in the same format. */
export function imageOf({ manifestDigest, format }: Omit<Statement, 'rootfsDigest'>): string {
  return `${format} ${manifestDigest}`
}

/** The newest statement about a name first: a tag of the past that somebody replays does not win by coming first. */
export function newestFirst<T extends { record: { nameStatement: { statedAtMs: number } } }>(told: readonly T[]): T[] {
  return told.toSorted((a, b) => b.record.nameStatement.statedAtMs - a.record.nameStatement.statedAtMs)
}
