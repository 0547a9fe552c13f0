import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { LabHost } from '../hosts/lab-host.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { dropPageCache } from '../hosts/page-cache.ts'
import type { LabImage } from '../images/lab-image.ts'
import { Registry } from '../registry/registry.ts'
import { HostileMember } from './hostile-member.ts'
import type { MemberCounts, MemberOrders } from './member-orders.ts'

type Conduct = Omit<MemberOrders, 'region' | 'targets' | 'identities'>

const harmless: Conduct = {
  claimsAll: false,
  chunks: 'missing',
  objects: 'missing',
  imports: 'refuse',
  floods: [],
  hints: [],
}

/** Acts of a bad member, one at a time. */
export const acts = {
  nothing: harmless,
  silence: { ...harmless, claimsAll: true, chunks: 'silent', objects: 'silent', imports: 'silent' },
  'claims of what he lacks': { ...harmless, claimsAll: true },
  'wrong bytes': { ...harmless, claimsAll: true, chunks: 'wrong', objects: 'garbage', imports: 'garbage' },
  'short answers': { ...harmless, claimsAll: true, chunks: 'short', objects: 'oversize' },
  'one kilobyte a second': { ...harmless, claimsAll: true, chunks: 'drip', objects: 'drip', imports: 'stall' },
  'forged records': { ...harmless, claimsAll: true, chunks: 'silent', objects: 'lie', imports: 'stall' },
  'a flood of members': { ...harmless, floods: ['members'] },
  'a flood of claims': { ...harmless, floods: ['haves'] },
  'a flood of questions': { ...harmless, floods: ['queries'] },
  'a flood of requests': { ...harmless, floods: ['objects'] },
  'a flood of wants': { ...harmless, floods: ['wants'] },
  'answers that are not read': { ...harmless, floods: ['unread'] },
  'addresses of others': harmless,
} satisfies Record<string, Conduct>

export type Act = keyof typeof acts

export interface BadMembersOptions {
  acts: readonly Act[]
  identities: number
  /** Whether the hosts list the key of the one that has seeded the images. */
  listKeys: boolean
  /** Receives one line for people as each act ends. */
  tell?: (line: string) => void
  signal?: AbortSignal
}

/** The effects of one act on honest hosts. */
export interface ActOutcome {
  act: Act
  /** From the call of `p2pfs mount` to its end, on a host that has nothing yet (ms). */
  mountMs: number
  /** The longest read of the image (ms), cold. */
  longestReadMs: number
  /** Errors of reads that failed. */
  errors: string[]
  /** Whether the image has the bytes that an honest host has made of the layers. */
  isRight: boolean
  /** Most memory of the host that reads, and of the one that it could read from, resident (bytes). */
  peakMemoryBytes: number
  /** Attempts to connect to a host that only the bad member has named. */
  connectionsToCanary: number
  /** Lines at level warn and error in the logs, without repeats. */
  warnings: string[]
  member: MemberCounts
}

const region = 'lab'
const peerPort = 4100
const readBytes = 128 * 1024
/** A limit for a busy machine. */
const meetTimeoutMs = 30_000

/**
 * Host A has seeded an image. Host B has nothing, and mounts and reads all of it, with a healthy registry, while a bad
 * member with many identities is connected to both. One act after the other.
 */
export async function runBadMembers(
  image: LabImage,
  other: LabImage,
  options: BadMembersOptions,
): Promise<ActOutcome[]> {
  const { identities, listKeys, tell = () => undefined, signal } = options
  const abort = { ...(signal && { signal }) }
  await using network = await Network.create(abort)
  const registry = await Registry.start(await network.addHost('registry', abort), abort)
  const reference = await registry.push(image, 'lab/image:1', abort)
  const otherReference = await registry.push(other, 'lab/other:1', abort)
  const hostA = await network.addHost('a', abort)
  const hostB = await network.addHost('b', abort)
  const evil = await network.addHost('evil', abort)
  const canary = await network.addHost('canary', abort)
  await canary.run('iptables', ['-w', '-I', 'INPUT', '-p', 'tcp', '--syn', '-j', 'ACCEPT'], abort)
  const common = { region, insecureRegistries: [registry.authority], ...abort }
  const expected = await seedAndRead(hostA, [otherReference, reference], common, abort)

  const outcomes: ActOutcome[] = []
  for (const act of options.acts) {
    await using a = await NodeProcess.start(hostA, common)
    const { peerId } = await a.status(abort)
    const trust = listKeys ? { trustedIndexKeys: [peerId] } : {}
    await using b = await NodeProcess.startEmpty(hostB, { ...common, ...trust, bootstrap: [a] })
    await b.whenStatus('has met A', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs, ...abort })
    const member = await HostileMember.start(evil, {
      ...acts[act],
      region,
      targets: [hostA, hostB].map(({ address }) => `/ip4/${address}/tcp/${peerPort}`),
      identities,
      hints: act === 'addresses of others' ? hintsTo(canary) : [],
      passedOff: otherReference,
    })
    const connectedBefore = await connectionsTo(canary, abort)
    const directory = join(hostB.directory, 'mnt')
    const startedAt = performance.now()
    const { rootfs } = await b.mount(reference, directory, abort)
    const mountMs = performance.now() - startedAt
    await dropPageCache(abort)
    const read = await readAll(rootfs)
    const peaks = await Promise.all([a, b].map(async (node) => await node.peakMemoryBytes(abort)))
    await b.unmount(directory, abort)
    const logs = await Promise.all([a, b].map(async (node) => await node.log()))
    const outcome: ActOutcome = {
      act,
      mountMs,
      longestReadMs: read.longestMs,
      errors: read.errors,
      isRight: read.sha256 === expected,
      peakMemoryBytes: Math.max(...peaks),
      connectionsToCanary: (await connectionsTo(canary, abort)) - connectedBefore,
      warnings: warningsOf(logs.join('\n')),
      member: await member.stop(),
    }
    outcomes.push(outcome)
    const { longestReadMs, errors, isRight } = outcome
    tell(
      `${act}: mounted in ${Math.round(mountMs)} ms, longest read ${Math.round(longestReadMs)} ms, ` +
        `${errors.length} errors, bytes ${isRight ? 'right' : 'WRONG'}`,
    )
  }
  return outcomes
}

/** Seeds the images on a host, whose daemon is stopped again. @returns the SHA-256 of the last one's rootfs image */
async function seedAndRead(
  host: LabHost,
  references: readonly string[],
  common: { region: string; insecureRegistries: string[]; signal?: AbortSignal },
  abort: { signal?: AbortSignal },
): Promise<string> {
  await using node = await NodeProcess.start(host, common)
  for (const reference of references) await node.seed(reference, abort)
  const directory = join(host.directory, 'mnt')
  const { rootfs } = await node.mount(references.at(-1)!, directory, abort)
  const { sha256, errors } = await readAll(rootfs)
  if (errors.length > 0) throw new Error(`the honest host cannot read: ${errors.join()}`)
  await node.unmount(directory, abort)
  return sha256
}

async function readAll(path: string): Promise<{ sha256: string; longestMs: number; errors: string[] }> {
  const hash = createHash('sha256')
  const errors: string[] = []
  const buffer = Buffer.alloc(readBytes)
  let longestMs = 0
  await using file = await open(path)
  const { size } = await file.stat()
  for (let position = 0; position < size; position += readBytes) {
    const startedAt = performance.now()
    try {
      const { bytesRead } = await file.read(buffer, 0, readBytes, position)
      hash.update(buffer.subarray(0, bytesRead))
    } catch (error) {
      errors.push((error as Error).message)
    }
    longestMs = Math.max(longestMs, performance.now() - startedAt)
  }
  return { sha256: hash.digest('hex'), longestMs, errors }
}

/** Addresses of a host that is no member, in all their forms. */
function hintsTo({ address }: LabHost): string[] {
  return Array.from({ length: 20 }, (_, i) => `/ip4/${address}/tcp/${peerPort + i}`)
}

/** Packets that began a connection to the host, as its firewall counts them. */
async function connectionsTo(host: LabHost, abort: { signal?: AbortSignal }): Promise<number> {
  const { stdout } = await host.run('iptables', ['-w', '-nvxL', 'INPUT'], abort)
  return Number(/^\s*(\d+)\s+\d+\s+ACCEPT/m.exec(stdout.toString())?.[1] ?? 'NaN')
}

function warningsOf(log: string): string[] {
  const messages = log
    .split('\n')
    .filter((line) => /"level":"(warn|error)"/.test(line))
    .map((line) => /"message":"([^"]*)"/.exec(line)?.[1] ?? line)
  return [...new Set(messages)]
}
