import { digestOf } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Urgency } from '../base/urgency.ts'
import { decodeContent } from './content-encoding.ts'
import type { Endpoint } from './endpoint.ts'
import type { EndpointClient } from './endpoint-client.ts'
import { bytesOf, headerOf, type Headers, type HttpResponse } from './http-messages.ts'
import { maxManifestBytes, type Descriptor } from './image-manifest.ts'
import type { ByteRange } from './image-storage.ts'
import type { Mirrors } from './mirrors.ts'
import type { RegistryReference } from './reference.ts'
import { pauseMs, retryBudgetMs, urgentBudgetMs, urgentPauseMs, type Clock } from './retry.ts'

export interface BlobReaderParts {
  client: Pick<EndpointClient, 'send'>
  mirrors: Pick<Mirrors, 'servers' | 'next' | 'succeeded' | 'failed'>
  clock: Clock
}

export interface BlobReadOptions {
  signal: AbortSignal
  /** An urgent read is tried again sooner, and given up sooner, so that its other sources are asked. */
  urgency: Urgency
  /** True: mirrors are not asked. */
  originOnly: boolean
  /** Bytes before those that are wanted, which a registry that ignores Range may send in vain. */
  maxSkipBytes: number
  /** Gets the number of bytes that were sent in vain. */
  onSkip?: (bytes: number) => void
  /** Gets each server that bytes come from. */
  onSource?: (endpoint: Endpoint) => void
}

/** Connections of one blob that may be lost in a row, with less than `resumeBytes` between them. */
const maxResumes = 5
const resumeBytes = 1024 * 1024

/** One request for a part of a blob. */
interface PartRequest {
  image: RegistryReference
  blob: Descriptor
  offset: number
  end: number
  /** False: the whole blob is asked for. */
  useRange: boolean
}

/** Bytes of blobs, from whichever server of the registry has them. */
export class BlobReader {
  readonly #parts: BlobReaderParts

  constructor(parts: BlobReaderParts) {
    this.#parts = parts
  }

  /**
   * Bytes [start, end). Where `end` is the blob's size, bytes after that come too, for the reader to refuse.
   * 1. The mirrors that work are asked in their order, then the registry; for a caller with credentials, only that.
   * 2. A read that breaks off goes on where it broke: at the next server at once, at the registry itself after a pause.
   * 3. A server that answers with another range than asked is asked for the whole, and the bytes before `start`
   *    skipped.
   */
  async *read(
    image: RegistryReference,
    blob: Descriptor,
    { start, end }: ByteRange,
    options: BlobReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const { mirrors, clock } = this.#parts
    const { digest, sizeBytes } = blob
    const { signal, urgency } = options
    const tried = new Set<Endpoint>()
    const servers = await mirrors.servers(image.registry)
    let offset = start
    let useRange = true
    let progressAtMs = clock.now()
    for (let failures = 0; ;) {
      const isOrigin = options.originOnly || image.caller !== undefined
      const endpoint = (isOrigin ? undefined : mirrors.next(servers, 'pull', tried)) ?? servers.original
      const partStart = offset
      try {
        for await (const piece of this.#part(endpoint, { image, blob, offset, end, useRange }, options)) {
          if (offset === partStart) options.onSource?.(endpoint)
          offset += piece.length
          yield piece
          progressAtMs = clock.now()
        }
        if (endpoint.isMirror && offset >= end) mirrors.succeeded(endpoint)
        if (offset >= end) return
        // A proxy may end a body early without an error.
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
        failures = offset - partStart >= resumeBytes ? 1 : failures + 1
        if (useRange && error.details['isOtherRange'] === true) {
          useRange = false
          continue
        }
        const isUrgent = urgency.isUrgent
        const pause =
          failures > maxResumes ? undefined : pauseMs(failures, error, clock, isUrgent ? urgentPauseMs : undefined)
        const budgetMs = isUrgent && error.details['retryAfterMs'] === undefined ? urgentBudgetMs : retryBudgetMs
        if (pause === undefined || clock.now() + pause - progressAtMs > budgetMs) throw error
        await clock.sleep(pause, signal)
      }
    }
  }

  async *#part(
    endpoint: Endpoint,
    { image, blob, offset, end, useRange }: PartRequest,
    { signal, urgency, maxSkipBytes, onSkip }: BlobReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const { digest, sizeBytes } = blob
    const isWhole = offset === 0 && end === sizeBytes
    const response = await this.#parts.client.send(endpoint, image, `blobs/${digest}`, {
      method: 'GET',
      headers: {
        // The bytes as they are stored: a proxy on the way may offer to compress.
        'accept-encoding': 'identity',
        ...(isWhole || !useRange ? {} : { range: `bytes=${offset}-${end - 1}` }),
      },
      statuses: [200, 206, 416],
      signal,
      urgency,
    })
    const skipBytes = response.status === 200 ? offset : skipOf(response.headers, offset, end)
    const refused = await refuseUseless(skipBytes, response, endpoint, maxSkipBytes)
    if (refused !== undefined) throw refused
    if (skipBytes > 0) onSkip?.(skipBytes)
    const body = isWhole && response.status === 200 ? await decodedBody(response, blob, endpoint) : response.body
    let left = end === sizeBytes ? Infinity : end - offset
    let leftToSkip = skipBytes
    for await (const piece of body) {
      const used = piece.subarray(Math.min(leftToSkip, piece.length))
      leftToSkip -= piece.length - used.length
      if (used.length === 0) continue
      // The server sends more than was asked for.
      if (left === 0) return
      const wanted = used.length > left ? used.subarray(0, left) : used
      left -= wanted.length
      yield wanted
      // Leaving a body ends the connection; a range is read to its end, so that the next one finds the connection.
      if (left === 0 && response.status === 200) return
    }
  }
}

/**
 * The body of a whole blob as it is stored. A proxy may compress text, such as a config, although it was asked not to;
 * a blob that is compressed itself, or too long to be a config, is passed as it comes.
 */
async function decodedBody(
  response: HttpResponse,
  { mediaType, sizeBytes, digest }: Descriptor,
  { name }: Endpoint,
): Promise<AsyncIterable<Uint8Array> | Iterable<Uint8Array>> {
  const isEncoded = headerOf(response.headers, 'content-encoding') !== undefined
  if (!isEncoded || /gzip|zstd/.test(mediaType) || sizeBytes > maxManifestBytes) return response.body
  const bytes = await bytesOf(response, name)
  const isStored = bytes.length === sizeBytes && digestOf(bytes) === digest
  return [isStored ? bytes : await decodeContent(bytes, response.headers, name)]
}

/**
 * Discards an answer that is of no use, and says why it is not.
 * @param skipBytes bytes of it that come before the wanted ones; NaN for another range than asked
 */
async function refuseUseless(
  skipBytes: number,
  response: HttpResponse,
  { name }: Endpoint,
  maxSkipBytes: number,
): Promise<P2pfsError | undefined> {
  const hasBytes = response.status === 206 || response.status === 200
  if (hasBytes && skipBytes >= 0 && skipBytes <= maxSkipBytes) return undefined
  await response.discard()
  if (response.status === 200) {
    return new P2pfsError(
      'unsupported',
      `${name} serves no ranges of blobs; read the blob from its beginning, ` +
        'or put a mirror that serves them before it with --registry-mirror',
      { registry: name },
    )
  }
  return new P2pfsError('unavailable', `${name} answers with another range than was asked for`, {
    registry: name,
    isOtherRange: true,
  })
}

/**
 * The bytes of a partial answer that come before `offset`: RFC 9110, section 14.4. NaN for an answer that is of no use:
 * one that begins later, or begins earlier and does not reach `end`. One that begins at `offset` may be short.
 */
function skipOf(headers: Headers, offset: number, end: number): number {
  const [, first, last] = /^bytes (\d+)-(\d+)\//.exec(headerOf(headers, 'content-range') ?? '') ?? []
  const isOfUse = Number(first) === offset || (Number(first) < offset && Number(last) >= end - 1)
  return isOfUse ? offset - Number(first) : Number.NaN
}
