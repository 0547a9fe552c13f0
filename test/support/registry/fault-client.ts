import type { TestContext } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import { HttpRegistry, type HttpRegistryOptions, type HttpRegistryParts } from '../../../node/registry/http-registry.ts'
import type { Descriptor } from '../../../node/registry/image-manifest.ts'
import { ImageSource } from '../../../node/registry/image-source.ts'
import { OciLayout } from '../../../node/registry/oci-layout.ts'
import { parseReference, type Reference } from '../../../node/registry/reference.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { createRandom } from '../random.ts'
import { FaultRegistry, type FaultRegistryOptions } from './fault-registry.ts'

export const { signal } = new AbortController()
/** Larger than the bytes between two lost connections that begin the count anew. */
export const layer = createRandom(11).bytes(3_000_000)
export const descriptor: Descriptor = { digest: digestOf(layer), mediaType: '', sizeBytes: layer.length }

/** Waits for nothing, and remembers how long it would have waited. */
export class FakeClock {
  readonly slept: number[] = []
  nowMs = Date.now()
  now = (): number => this.nowMs
  random = (): number => 0.5
  sleep = async (ms: number, aborted: AbortSignal): Promise<void> => {
    aborted.throwIfAborted()
    this.slept.push(ms)
    this.nowMs += ms
  }
}

/** A registry in this process with the layer in it. */
export async function startRegistry(t: TestContext, options: FaultRegistryOptions = {}): Promise<FaultRegistry> {
  const registry = await FaultRegistry.start(options)
  t.after(async () => await registry[Symbol.asyncDispose]())
  registry.addBlob(layer)
  return registry
}

export interface Client {
  registry: HttpRegistry
  source: ImageSource
  clock: FakeClock
  /** `lab/app` of the host that the client was made for. */
  reference: Reference
  blob: () => Promise<Buffer>
  range: (start: number, end: number) => Promise<Buffer>
}

/** For servers that fall silent; other servers get the time that a busy machine takes. */
export const impatient = { headersMs: 1500, idleMs: 250 }

export type ClientOptions = Partial<Omit<HttpRegistryParts, 'clock'> & HttpRegistryOptions> & { clock?: FakeClock }

/** A client whose pauses take no time, and that speaks plain HTTP with `host`. */
export function createClient(
  t: TestContext,
  host: string,
  {
    log = silentLog,
    clock = new FakeClock(),
    credentials = { find: async () => undefined },
    guard,
    ...options
  }: ClientOptions = {},
): Client {
  const registry = new HttpRegistry(
    { log, clock, credentials, ...(guard && { guard }) },
    {
      insecureRegistries: [host],
      userAgent: 'test',
      environment: {},
      certificates: { authorityFiles: [], hostsDirectory: '/nonexistent' },
      ...options,
    },
  )
  t.after(async () => await registry.close())
  const reference = parseReference(`${host}/lab/app`)
  return {
    registry,
    source: new ImageSource({ registry, layout: new OciLayout(), log }),
    clock,
    reference,
    blob: async () => await readAll(registry.blob(reference, descriptor, { signal })),
    range: async (start, end) => Buffer.from(await registry.range(reference, descriptor, { start, end }, { signal })),
  }
}

export async function readAll(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of bytes) pieces.push(piece)
  return Buffer.concat(pieces)
}

export const fails = (code: ErrorCode, pattern: RegExp) => (error: unknown) =>
  isP2pfsError(error, code) && pattern.test(error.message)
