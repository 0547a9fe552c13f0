import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Urgency } from '../base/urgency.ts'
import type { Headers, HttpResponse } from './http-client.ts'
import type { Descriptor } from './image-manifest.ts'
import type { ByteRange } from './image-storage.ts'
import type { Endpoint, Mirrors } from './mirrors.ts'
import type { RegistryReference } from './reference.ts'
import { pauseMs, retryBudgetMs, urgentBudgetMs, urgentPauseMs, type Clock } from './retry.ts'

export interface BlobReaderParts {
  /** Answers of status 200, 206 and 416; others are thrown. */
  get: (
    endpoint: Endpoint,
    at: RegistryReference,
    path: string,
    headers: Record<string, string>,
    options: { signal: AbortSignal; urgency: Urgency },
  ) => Promise<HttpResponse>
  mirrors: Mirrors
  clock: Clock
}

export interface BlobReadOptions {
  signal: AbortSignal
  /** Whether somebody waits for these bytes: then it is tried again sooner, and given up sooner, for other sources to be asked. */
  urgency: Urgency
  originOnly: boolean
  /** Bytes that may come in vain, from a registry that ignores Range, before those that are asked for. */
  maxSkipBytes: number
  /** Told how many do. */
  onSkip?: (bytes: number) => void
  /** Told of each server that bytes come from. */
  onSource?: (endpoint: Endpoint) => void
}

/** Connections lost in the middle of one blob, one after the other with less than this between, before giving up. */
const maxResumes = 5
const resumeBytes = 1024 * 1024

/** Bytes of blobs, from whichever server of the registry has them. */
export class BlobReader {
  readonly #parts: BlobReaderParts

  constructor(parts: BlobReaderParts) {
    this.#parts = parts
  }

  /**
   * Bytes [start, end), and where `end` is the blob's size also what comes after that, which is for the reader to refuse.
   * 1. The mirrors that work are asked in their order, then the registry.
   * 2. What breaks off goes on where it broke: at the next server at once, at the registry itself after a pause.
   * 3. A server that answers with another range than asked is asked for the whole, and what is before `start` skipped.
   */
  async *read(
    at: RegistryReference,
    { digest, sizeBytes }: Descriptor,
    { start, end }: ByteRange,
    options: BlobReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const { mirrors, clock } = this.#parts
    const { signal, urgency } = options
    const tried = new Set<Endpoint>()
    const original = mirrors.original(at.registry)
    let offset = start
    let ranges = true
    let progressAtMs = clock.now()
    for (let failures = 0; ;) {
      const endpoint = (options.originOnly ? undefined : mirrors.next(at.registry, tried)) ?? original
      const from = offset
      try {
        for await (const piece of this.#from(endpoint, at, digest, { offset, end, sizeBytes, ranges }, options)) {
          if (offset === from) options.onSource?.(endpoint)
          offset += piece.length
          yield piece
          progressAtMs = clock.now()
        }
        if (endpoint.isMirror && offset >= end) mirrors.succeeded(endpoint)
        if (offset >= end) return
        // Where a proxy ends a body early without a word.
        throw new P2pfsError('unavailable', `${endpoint.name} ends the blob after ${offset} of ${sizeBytes} bytes`, {
          digest,
        })
      } catch (error) {
        if (signal.aborted || !isP2pfsError(error)) throw error
        if (endpoint.isMirror) {
          mirrors.failed(endpoint, error)
          tried.add(endpoint)
          continue
        }
        if (offset >= end && isP2pfsError(error, 'unavailable', 'timeout')) return
        failures = offset - from >= resumeBytes ? 1 : failures + 1
        if (ranges && error.details['otherRange'] === true) {
          ranges = false
          continue
        }
        const pause =
          failures > maxResumes
            ? undefined
            : pauseMs(failures, error, clock, urgency.isUrgent ? urgentPauseMs : undefined)
        const budgetMs =
          urgency.isUrgent && error.details['retryAfterMs'] === undefined ? urgentBudgetMs : retryBudgetMs
        if (pause === undefined || clock.now() + pause - progressAtMs > budgetMs) throw error
        await clock.sleep(pause, signal)
      }
    }
  }

  async *#from(
    endpoint: Endpoint,
    at: RegistryReference,
    digest: Digest,
    { offset, end, sizeBytes, ranges }: { offset: number; end: number; sizeBytes: number; ranges: boolean },
    { signal, urgency, maxSkipBytes, onSkip }: BlobReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const isWhole = offset === 0 && end === sizeBytes
    // Bytes as they are stored: a proxy on the way may offer to compress.
    const headers = {
      'accept-encoding': 'identity',
      ...(isWhole || !ranges ? {} : { range: `bytes=${offset}-${end - 1}` }),
    }
    const response = await this.#parts.get(endpoint, at, `blobs/${digest}`, headers, { signal, urgency })
    const skip = response.status === 200 ? offset : skipOf(response.headers, offset, end)
    const refused = await whyRefused(skip, response, endpoint, maxSkipBytes)
    if (refused !== undefined) throw refused
    if (skip > 0) onSkip?.(skip)
    let left = end === sizeBytes ? Infinity : end - offset
    let before = skip
    for await (const piece of response.body) {
      const used = piece.subarray(Math.min(before, piece.length))
      before -= piece.length - used.length
      if (used.length === 0) continue
      // More than was asked for.
      if (left === 0) return
      const wanted = used.length > left ? used.subarray(0, left) : used
      left -= wanted.length
      yield wanted
      // Leaving it ends the connection; a range is read to its end, so that the next one finds the connection.
      if (left === 0 && response.status === 200) return
    }
  }
}

/** Ends an answer that is of no use. @param skip bytes of it that are before those that are wanted; NaN where it does not say */
async function whyRefused(
  skip: number,
  response: HttpResponse,
  { name }: Endpoint,
  maxSkipBytes: number,
): Promise<P2pfsError | undefined> {
  const isRange = response.status === 206 || response.status === 200
  if (isRange && skip >= 0 && skip <= maxSkipBytes) return undefined
  await response.discard()
  if (response.status === 200) {
    return new P2pfsError(
      'unsupported',
      `${name} serves no ranges of blobs; read the blob from its beginning, or put a mirror that serves them before it with --registry-mirror`,
      { registry: name },
    )
  }
  return new P2pfsError('unavailable', `${name} answers with another range than was asked for`, {
    registry: name,
    otherRange: true,
  })
}

/**
 * Bytes of a partial answer before `offset`: RFC 9110, section 14.4. NaN for an answer that is of no use: one that begins
 * later, or earlier and does not reach `end`. One that begins there may be shorter than was asked for.
 */
function skipOf(headers: Headers, offset: number, end: number): number {
  const [, first, last] = /^bytes (\d+)-(\d+)\//.exec([headers['content-range']].flat()[0] ?? '') ?? []
  const isOfUse = Number(first) === offset || (Number(first) < offset && Number(last) >= end - 1)
  return isOfUse ? offset - Number(first) : Number.NaN
}
