import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError } from '../../protocol/errors.ts'
import { redactValue } from '../base/redact.ts'
import type { Check, DoctorRequest, DoctorResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { Membership } from '../peers/membership.ts'
import type { ReachClient } from '../peers/reach/client.ts'
import type { ImageSource, ResolvedImage } from '../registry/image-source.ts'
import type { ImageRequests } from './image-request.ts'

/** Members that are asked whether they reach this host: one may be behind the same wall. */
const maxAsked = 3
/** Clocks that differ by more make times of seeds and of the log hard to follow (ms). */
const clockWarnMs = 2_000
/** TLS certificates and tokens of registries, and statements about tags, go by time (ms). */
const clockProblemMs = 60_000
/** A registry that takes longer makes every mount of an unknown image wait (ms). */
const slowRegistryMs = 2_000
/** How long a registry may take in all (ms). */
const registryMs = 20_000

export interface DoctorParts {
  requests: ImageRequests
  registry: Pick<ImageSource, 'resolve' | 'range'>
  network: {
    multiaddrs: () => string[]
    membership: Pick<Membership, 'peers' | 'roster'>
    reach: Pick<ReachClient, 'ask'>
  }
}

export interface DoctorOptions {
  /** The daemon's options. */
  config: object
  stateDir: string
  hasBootstrap: boolean
}

/** The part of `p2pfs doctor` that only the daemon can do: peers, clocks, and the registry of an image. */
export class DoctorOperation {
  readonly #parts: DoctorParts
  readonly #options: DoctorOptions

  constructor(parts: DoctorParts, options: DoctorOptions) {
    this.#parts = parts
    this.#options = options
  }

  async run(request: DoctorRequest, { signal }: OperationOptions): Promise<DoctorResult> {
    const { config, stateDir } = this.#options
    const checks = [await this.#checkPeers({ signal }), await this.#checkRegistry(request, { signal })].flat()
    return { checks, stateDir, config: redactValue(config) as Record<string, unknown> }
  }

  /** Members dial back to the ports that this host listens on; their clocks come with the answers. */
  async #checkPeers({ signal }: { signal: AbortSignal }): Promise<Check[]> {
    const { network } = this.#parts
    const peers = network.membership.peers()
    const known = network.membership.roster.size - 1
    if (peers.length === 0) return [this.#alone(known)]
    const ports = portsOf(network.multiaddrs())
    const region: Check = { name: 'region', state: 'ok', found: `${known} members known, ${peers.length} connected` }
    if (ports.length === 0)
      return [region, { name: 'reached by peers', state: 'left-out', found: 'this host listens on no TCP port' }]
    const asked = await Promise.all(
      peers.slice(0, maxAsked).map(async ({ peer, name }) => {
        try {
          return { name, ...(await network.reach.ask(peer, ports, { signal })) }
        } catch (error) {
          signal.throwIfAborted()
          return { name, failure: (error as Error).message }
        }
      }),
    )
    const answers = asked.filter((answer) => 'reached' in answer)
    if (answers.length === 0) {
      const why = asked.map(({ name, ...answer }) => `${name}: ${'failure' in answer ? answer.failure : ''}`).join('; ')
      return [region, { name: 'reached by peers', state: 'left-out', found: `no member could say: ${why}` }]
    }
    return [region, describeReach(answers, ports), describeClocks(answers)]
  }

  #alone(known: number): Check {
    if (known === 0 && !this.#options.hasBootstrap)
      return {
        name: 'region',
        state: 'ok',
        found: 'this host is the only one of its region, as no --bootstrap is given',
      }
    return {
      name: 'region',
      state: 'problem',
      found: `no member is connected, ${known} known`,
      advice:
        'check --bootstrap, that its port is open (nc -vz HOST 4100), and that --region and the region key are the same on ' +
        'all hosts; the log says why connections fail with --log-level debug',
    }
  }

  /** Resolves the image, and reads a byte of its largest layer as a mount would. */
  async #checkRegistry(request: DoctorRequest, { signal }: { signal: AbortSignal }): Promise<Check[]> {
    const { image } = request
    if (image === undefined) return []
    const { reference, variant } = this.#parts.requests.parse({ ...request, image })
    if (reference.kind !== 'registry')
      return [{ name: 'registry', state: 'left-out', found: `${image} is in no registry` }]
    const ended = AbortSignal.any([signal, AbortSignal.timeout(registryMs)])
    const begunMs = performance.now()
    let resolved: ResolvedImage
    try {
      resolved = await this.#parts.registry.resolve(reference, variant.platform, { signal: ended })
    } catch (error) {
      signal.throwIfAborted()
      return [failed('registry', error, reference.registry)]
    }
    const tookMs = Math.round(performance.now() - begunMs)
    const found = `${reference.registry} has ${resolved.reference} for ${resolved.platform}, said in ${tookMs} ms`
    const registry: Check =
      tookMs > slowRegistryMs
        ? {
            name: 'registry',
            state: 'warning',
            found,
            advice: 'seed images ahead of mounts (p2pfs seed), or name a mirror nearby with --registry-mirror',
          }
        : { name: 'registry', state: 'ok', found }
    const layer = resolved.layers.toSorted((a, b) => b.sizeBytes - a.sizeBytes)[0]
    if (layer === undefined) return [registry]
    try {
      await this.#parts.registry.range(reference, layer, { start: 0, end: 1 }, { signal: ended })
    } catch (error) {
      signal.throwIfAborted()
      return [
        registry,
        isP2pfsError(error, 'unsupported') ? noRanges(layer.digest) : failed('layers', error, reference.registry),
      ]
    }
    return [registry, { name: 'layers', state: 'ok', found: 'ranges of layers are served, with these credentials' }]
  }
}

function portsOf(addresses: readonly string[]): number[] {
  const ports = addresses.map((address) => Number(/\/tcp\/(\d+)/.exec(address)?.[1] ?? 0))
  return [...new Set(ports)].filter((port) => port > 0).slice(0, 4)
}

function describeReach(
  answers: readonly { name: string; address: string; reached: readonly boolean[] }[],
  ports: readonly number[],
): Check {
  const name = 'reached by peers'
  const missed = answers.filter(({ reached }) => !reached.includes(true))
  const asked = answers.map((answer) => `${answer.name} at ${answer.address}`).join(', ')
  if (missed.length === 0) return { name, state: 'ok', found: `port ${ports.join(', ')} was reached by ${asked}` }
  const whose = missed.map((answer) => `${answer.name} at ${answer.address}`).join(', ')
  return {
    name,
    state: missed.length === answers.length ? 'problem' : 'warning',
    found: `port ${ports.join(', ')} was not reached by ${whose}`,
    advice:
      `open TCP port ${ports.join(', ')} of this host for its region (firewall, security group, address translation), and ` +
      'listen on an address that members see (--listen); until then only hosts that this one dials get chunks from it',
  }
}

/** The middle one of the clocks counts: one member's may be wrong. */
function describeClocks(answers: readonly { timeMs: number; tookMs: number }[]): Check {
  const offsets = answers.map(({ timeMs, tookMs }) => Date.now() - timeMs - tookMs / 2).toSorted((a, b) => a - b)
  const offsetMs = offsets[Math.floor(offsets.length / 2)]!
  const found = `this host's is ${(Math.abs(offsetMs) / 1000).toFixed(1)} s ${offsetMs < 0 ? 'behind' : 'before'} the members'`
  const state = Math.abs(offsetMs) > clockProblemMs ? 'problem' : Math.abs(offsetMs) > clockWarnMs ? 'warning' : 'ok'
  const advice = 'set the clock by NTP (timedatectl set-ntp true), here or there'
  return { name: 'clock', state, found, ...(state !== 'ok' && { advice }) }
}

function failed(name: string, error: unknown, registry: string): Check {
  // A refusal by TLS or a proxy is no matter of credentials, and says itself what to do.
  const isTransport = isP2pfsError(error, 'denied') && error.cause !== undefined
  const advice: Partial<Record<string, string>> = {
    denied: `log in as the daemon's user (docker login ${registry}), or give credentials with the mount`,
    missing: 'check the name, the tag and --platform',
    timeout:
      'check DNS, proxy and firewall between this host and the registry; seeds and peers serve what is known meanwhile',
    unavailable: 'check DNS, proxy and firewall between this host and the registry',
    busy: 'log in for a higher limit, or name a mirror with --registry-mirror',
  }
  const code = isP2pfsError(error) ? error.code : (error as Error).name === 'TimeoutError' ? 'timeout' : 'unavailable'
  return {
    name,
    state: 'problem',
    found: (error as Error).message,
    ...(!isTransport && advice[code] !== undefined && { advice: advice[code] }),
  }
}

function noRanges(layer: Digest): Check {
  return {
    name: 'layers',
    state: 'warning',
    found: `the registry serves no ranges of ${layer}, so that whole layers are read for a few files`,
    advice: 'use a registry or mirror that serves ranges, or seed images before they are mounted',
  }
}
