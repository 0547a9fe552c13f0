import { randomBytes } from 'node:crypto'
import { createConnection, createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { digestOf, type Digest } from '../../../../protocol/digest.ts'
import type { BulkGrant, BulkMode } from '../../../../protocol/messages/bulk.ts'
import { Bandwidth } from '../../../../node/base/bandwidth.ts'
import { BulkReceiver } from '../../../../node/peers/bulk/bulk-receiver.ts'
import { BulkSender } from '../../../../node/peers/bulk/bulk-sender.ts'
import type { BulkListen, FromReceiver, FromSender, WantOutcome } from '../../../../node/peers/bulk/thread-messages.ts'
import { until } from '../test-peer.ts'

/** A sender whose chunks are a map; in this thread. */
export class SenderEnd {
  readonly chunks = new Map<Digest, Buffer>()
  readonly reports: FromSender[] = []
  readonly sender: BulkSender
  /** Chunks that were read for peers. */
  reads: Digest[] = []
  port = 0
  now = 0

  static async start(
    context: TestContext,
    {
      mode = 'tls',
      listen = {},
      upload = new Bandwidth(),
    }: { mode?: BulkMode; listen?: Partial<BulkListen>; upload?: Bandwidth } = {},
  ): Promise<SenderEnd> {
    const end = new SenderEnd(mode, upload)
    context.after(() => end.sender[Symbol.dispose]())
    end.sender.listen({ hosts: ['127.0.0.1'], port: 0, orAny: false, ...listen })
    await until('it listens', () => end.port !== 0)
    return end
  }

  private constructor(mode: BulkMode, upload: Bandwidth) {
    this.sender = new BulkSender(
      {
        read: (digest, target, offset) => {
          const bytes = this.chunks.get(digest)
          this.reads.push(digest)
          bytes?.copy(target, offset)
          return bytes?.length
        },
        report: (message) => {
          this.reports.push(message)
          if ('listening' in message) this.port = message.listening.port
        },
      },
      { mode, upload, now: () => this.now },
    )
  }

  /** Makes chunks that differ, and holds them. */
  hold(count: number, lengthBytes = 256 * 1024): Digest[] {
    return Array.from({ length: count }, () => {
      return this.holdThis(randomBytes(lengthBytes))
    })
  }

  holdThis(bytes: Buffer): Digest {
    const digest = digestOf(bytes)
    this.chunks.set(digest, bytes)
    return digest
  }

  /** Lets a peer open one connection. */
  grant(peer = 'peer', { port = this.port, lifetimeMs = 5_000 } = {}): BulkGrant {
    const grant = { id: randomBytes(16), secret: randomBytes(32) }
    this.sender.handle({ grant, peer, lifetimeMs })
    return { ...grant, port }
  }
}

/** A receiver that keeps chunks in a map; in this thread. */
export class ReceiverEnd {
  readonly kept = new Map<Digest, Buffer>()
  readonly reports: FromReceiver[] = []
  readonly outcomes = new Map<number, WantOutcome>()
  readonly receiver: BulkReceiver
  keep = (digest: Digest, bytes: Uint8Array): number => {
    this.kept.set(digest, Buffer.from(bytes))
    return 1
  }

  #connections = 0

  constructor(context: TestContext, { mode = 'tls' }: { mode?: BulkMode } = {}) {
    this.receiver = new BulkReceiver(
      {
        keep: (digest, bytes) => this.keep(digest, bytes),
        report: (message) => {
          this.reports.push(message)
          if ('met' in message) for (const { id, outcome } of message.wants) this.outcomes.set(id, outcome)
        },
      },
      { mode },
    )
    context.after(() => this.receiver[Symbol.dispose]())
  }

  open(grant: BulkGrant): number {
    const key = this.#connections++
    this.receiver.handle({ open: key, host: '127.0.0.1', grant })
    return key
  }

  /** Opens a connection, and waits until it stands. */
  async opened(grant: BulkGrant): Promise<number> {
    const key = this.open(grant)
    await until('the connection is open', () =>
      this.reports.some((report) => 'opened' in report && report.opened === key),
    )
    return key
  }

  want(connection: number, digests: readonly Digest[], lengthBytes = 256 * 1024, firstId = 0): void {
    this.receiver.handle({
      want: connection,
      wants: digests.map((digest, i) => ({ id: firstId + i, digest, lengthBytes })),
    })
  }

  /** Waits for the end of the connection. @returns why */
  async ended(connection: number): Promise<Extract<FromReceiver, { closed: number }>['failure']> {
    const end = (): FromReceiver | undefined =>
      this.reports.find((report) => 'closed' in report && report.closed === connection)
    await until('the connection ends', () => end() !== undefined)
    return (end() as Extract<FromReceiver, { closed: number }>).failure
  }
}

/** Passes bytes on to a port, and keeps what each side said. */
export async function startWiretap(
  context: TestContext,
  target: () => number,
): Promise<{ port: number; asker: Buffer[]; holder: Buffer[]; sockets: Socket[] }> {
  const tap = { port: 0, asker: [] as Buffer[], holder: [] as Buffer[], sockets: [] as Socket[] }
  const server = createServer((inner) => {
    const outer = createConnection({ host: '127.0.0.1', port: target() })
    tap.sockets.push(inner, outer)
    for (const [from, to, heard] of [
      [inner, outer, tap.asker],
      [outer, inner, tap.holder],
    ] as const) {
      from.on('data', (bytes: Buffer) => {
        heard.push(bytes)
        to.write(bytes)
      })
      from.on('close', () => to.destroy()).on('error', () => to.destroy())
    }
  })
  context.after(() => {
    server.close()
    for (const socket of tap.sockets) socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  tap.port = (server.address() as { port: number }).port
  return tap
}
