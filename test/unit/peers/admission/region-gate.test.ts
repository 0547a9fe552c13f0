import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { MessageStream } from '@libp2p/interface'
import { byteStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { silentLog } from '../../../../node/base/log.ts'
import { limits } from '../../../../node/peers/limits.ts'
import { diallerProof, nonceBytes, proofBytes } from '../../../../node/peers/admission/proof.ts'
import { RegionGate } from '../../../../node/peers/admission/region-gate.ts'
import { openRegionSecret, regionSecret } from '../../../../node/peers/admission/region-keys.ts'
import { createPeerHost, type PeerGate } from '../../../../node/peers/peer-host.ts'
import { formatRegionKey, regionKeyBytes } from '../../../../protocol/region-key.ts'
import { regionProtocol } from '../../../../protocol/messages/region.ts'
import { startRawHost } from '../../../support/raw-host.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'
import { TestPeer, until } from '../test-peer.ts'

const keys = { old: new Uint8Array(regionKeyBytes).fill(1), new: new Uint8Array(regionKeyBytes).fill(2) }

function keyFile(t: TestContext, names: (keyof typeof keys)[]): string {
  const file = join(temporaryDirectory(t), 'region.key')
  writeFileSync(file, names.map((name) => `${formatRegionKey(keys[name])}\n`).join(''), { mode: 0o600 })
  return file
}

function portOf(address: string): number {
  return Number(/\/tcp\/(\d+)/.exec(address)![1])
}

/** A connection that is no p2pfs, from an address of its own. */
async function stranger(t: TestContext, address: string, localAddress = '127.0.0.9'): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: portOf(address), localAddress })
  socket.on('error', () => undefined)
  t.after(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

/** All that the other side sends until it closes the connection. */
async function heard(socket: Socket): Promise<Buffer> {
  const parts: Buffer[] = []
  socket.on('data', (part: Buffer) => parts.push(part))
  await closed(socket)
  return Buffer.concat(parts)
}

/** Resolves when the connection has ended, also by a reset. */
async function closed(socket: Socket): Promise<void> {
  await new Promise<void>((resolve) => {
    socket.on('error', () => undefined).once('close', () => resolve())
  })
}

test('hosts with the region key are members', async (t) => {
  const regionKeyFile = keyFile(t, ['old'])
  const a = await TestPeer.start(t, 'a', { regionKeyFile })
  const b = await TestPeer.start(t, 'b', { regionKeyFile, bootstrap: [a.address] })
  await until('they have met', () => [a, b].every(({ network }) => network.membership.peers().length === 1))
  assert.deepEqual(a.network.strangers, { turnedAway: 0, dropped: 0 })
})

test('a stranger learns nothing: 32 random bytes, whatever he says', { timeout: 60_000 }, async (t) => {
  const a = await TestPeer.start(t, 'a', { regionKeyFile: keyFile(t, ['old']) })
  const greetings = [
    Buffer.alloc(0),
    Buffer.from('\x13/multistream/1.0.0\n'.padEnd(64, '\n')),
    Buffer.from('GET / HTTP/1.1\r\n\r\n'.padEnd(64)),
    Buffer.alloc(64),
    Buffer.alloc(63),
    Buffer.alloc(1 << 20),
  ]
  const answers = await Promise.all(
    greetings.map(async (greeting) => {
      const socket = await stranger(t, a.address)
      socket.write(greeting)
      return await heard(socket)
    }),
  )
  assert.equal(answers[0]!.length, nonceBytes)
  // A reset may overtake the bytes.
  const seen = answers.filter(({ length }) => length > 0)
  for (const answer of seen) assert.equal(answer.length, nonceBytes)
  assert.equal(new Set(seen.map(String)).size, seen.length)
  await until('all are counted', () => a.network.strangers.turnedAway === greetings.length)
  assert.deepEqual(a.network.membership.peers(), [])
})

test('a proof that was heard is of no use again', async (t) => {
  const secret = regionSecret(keys.old, 'test')
  const a = await TestPeer.start(t, 'a', { regionKeyFile: keyFile(t, ['old']) })
  const ask = async (proofOf: (nonce: Buffer) => Buffer): Promise<number> => {
    const socket = await stranger(t, a.address)
    const [nonce] = (await once(socket, 'data')) as [Buffer]
    socket.write(proofOf(nonce))
    const answer = new Promise<number>((resolve) => socket.once('data', ({ length }: Buffer) => resolve(length)))
    return await Promise.race([answer, closed(socket).then(() => 0)])
  }
  const dialler = Buffer.alloc(nonceBytes, 5)
  let recorded: Buffer | undefined
  const answered = await ask((listener) => {
    recorded = Buffer.concat([dialler, diallerProof(secret, { listener, dialler })])
    return recorded
  })
  assert.equal(answered, proofBytes)
  assert.equal(await ask(() => recorded!), 0)
})

test('a stranger whom this host dials gets a proof that is of use nowhere, and is told nothing', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const a = await TestPeer.start(t, 'a', {
    regionKeyFile: keyFile(t, ['old']),
    bootstrap: [`/ip4/127.0.0.1/tcp/${port}`],
  })
  const [socket] = (await once(server, 'connection')) as [Socket]
  socket.write(Buffer.alloc(nonceBytes + proofBytes))
  const answer = await heard(socket)
  assert.equal(answer.length, nonceBytes + proofBytes)
  assert.deepEqual(a.network.membership.peers(), [])
})

/** Dials with the proof that somebody else makes for the nonce that it is sent. */
class RelayGate implements PeerGate {
  readonly proofFor: (nonce: Uint8Array) => Promise<Uint8Array>
  wasAdmitted = false

  constructor(proofFor: (nonce: Uint8Array) => Promise<Uint8Array>) {
    this.proofFor = proofFor
  }

  accept(): void {
    throw new Error('nobody dials it')
  }

  adopt(): void {
    throw new Error('nobody dials it')
  }

  isGuest(): boolean {
    return false
  }

  prologueOf(): Uint8Array {
    return new Uint8Array(32)
  }

  async protect(connection: MessageStream): Promise<MessageStream> {
    const bytes = byteStream(connection)
    const nonce = (await bytes.read({ bytes: nonceBytes })).subarray()
    await bytes.write(await this.proofFor(nonce))
    await bytes.read({ bytes: proofBytes })
    this.wasAdmitted = true
    return bytes.unwrap()
  }
}

test('who passes on the proofs of two members cannot talk in their place', async (t) => {
  const regionKeyFile = keyFile(t, ['old'])
  const listener = await TestPeer.start(t, 'listener', { regionKeyFile })
  const server = createServer().listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const victim = once(server, 'connection')
  await TestPeer.start(t, 'dialler', { regionKeyFile, bootstrap: [`/ip4/127.0.0.1/tcp/${port}`] })
  const [socket] = (await victim) as [Socket]
  const gate = new RelayGate(async (nonce) => {
    socket.write(nonce)
    const [proof] = (await once(socket, 'data')) as [Buffer]
    return proof
  })
  const host = await createPeerHost(
    { privateKey: await generateKeyPair('Ed25519'), gate },
    { listen: [], isBarred: () => false },
  )
  await host.start()
  t.after(async () => await host.stop())
  await assert.rejects(host.dial(multiaddr(listener.address)))
  assert.equal(gate.wasAdmitted, true, 'the proofs were passed on')
  assert.deepEqual(listener.network.membership.peers(), [])
  assert.deepEqual(host.getPeers(), [])
})

test('a host that has another key, or none, is turned away', async (t) => {
  const a = await TestPeer.start(t, 'a', { regionKeyFile: keyFile(t, ['old']) })
  for (const secret of [regionSecret(keys.new, 'test'), openRegionSecret('test'), new Uint8Array(32)])
    await assert.rejects(async () => {
      const host = await startRawHost({ secret })
      t.after(async () => await host.stop())
      await host.dial(multiaddr(a.address))
    })
  await until('all are counted', () => a.network.strangers.turnedAway === 3)
})

test('a host of another region is turned away although it has the same key, and hears no name', async (t) => {
  const regionKeyFile = keyFile(t, ['old'])
  const a = await TestPeer.start(t, 'a', { regionKeyFile, region: 'eu' })
  const b = await TestPeer.start(t, 'b', { regionKeyFile, region: 'us', bootstrap: [a.address] })
  await until('it was turned away', () => a.network.strangers.turnedAway > 0)
  assert.deepEqual([a, b].map(({ network }) => network.membership.peers()).flat(), [])
})

test('a region key is changed while all hosts run', async (t) => {
  // The steps of a change, each seen from two hosts of which one has not taken it yet.
  const steps = [
    [['old'], ['old', 'new']],
    [
      ['old', 'new'],
      ['new', 'old'],
    ],
    [['new', 'old'], ['new']],
  ] as [(keyof typeof keys)[], (keyof typeof keys)[]][]
  for (const [before, after] of steps)
    for (const [first, second] of [
      [before, after],
      [after, before],
    ] as const) {
      const a = await TestPeer.start(t, 'a', { regionKeyFile: keyFile(t, first) })
      const b = await TestPeer.start(t, 'b', { regionKeyFile: keyFile(t, second), bootstrap: [a.address] })
      await until(`${first.join()} and ${second.join()} have met`, () => b.network.membership.peers().length === 1)
    }
})

test('only the listed members are let in where there is a list', async (t) => {
  const regionKeyFile = keyFile(t, ['old'])
  const directories = { a: temporaryDirectory(t), b: temporaryDirectory(t) }
  const ids: string[] = []
  for (const name of ['a', 'b'] as const) {
    const { network } = await TestPeer.start(t, name, { regionKeyFile, directory: directories[name] })
    ids.push(network.peerId)
    await network.stop()
  }
  const memberFile = join(temporaryDirectory(t), 'members')
  writeFileSync(memberFile, ids.join('\n'))
  const a = await TestPeer.start(t, 'a', { regionKeyFile, memberFile, directory: directories.a })
  const unlisted = await TestPeer.start(t, 'c', { regionKeyFile, bootstrap: [a.address] })
  const b = await TestPeer.start(t, 'b', {
    regionKeyFile,
    memberFile,
    directory: directories.b,
    bootstrap: [a.address],
  })
  await until('the listed ones have met', () => a.network.membership.peers().length === 1)
  assert.deepEqual(
    a.network.membership.peers().map(({ peer }) => peer),
    [b.network.peerId],
  )
  assert.deepEqual(unlisted.network.membership.peers(), [])
})

test('an honest host gets in while 1,000 half-open handshakes are held', { timeout: 60_000 }, async (t) => {
  const regionKeyFile = keyFile(t, ['old'])
  const a = await TestPeer.start(t, 'a', { regionKeyFile })
  // From as many addresses as the bound for all takes, and the honest host's own.
  const sources = [...Array.from({ length: 31 }, (_, i) => `127.0.1.${i + 1}`), '127.0.0.1']
  for (let round = 0; round < 32; round++)
    await Promise.all(sources.map(async (source) => await stranger(t, a.address, source)))
  const b = await TestPeer.start(t, 'b', { regionKeyFile, bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  assert.ok(a.network.strangers.dropped >= 1024 - 512)
})

test('connections of one source are bounded, whatever identities it makes up', { timeout: 60_000 }, async (t) => {
  const a = await TestPeer.start(t, 'a')
  const gate = new RegionGate({ log: silentLog }, [openRegionSecret('test')])
  let admitted = 0
  for (let i = 0; i < limits.connections.perSource + 6; i++) {
    const host = await createPeerHost(
      { privateKey: await generateKeyPair('Ed25519'), gate },
      { listen: [], isBarred: () => false },
    )
    await host.handle(regionProtocol, () => undefined)
    await host.start()
    t.after(async () => await host.stop())
    await host.dial(multiaddr(a.address)).then(
      () => admitted++,
      () => undefined,
    )
  }
  assert.equal(admitted, limits.connections.perSource)
})
