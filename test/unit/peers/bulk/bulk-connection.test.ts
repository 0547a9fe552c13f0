import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import {
  connect as connectTls,
  createServer as createTlsServer,
  getCACertificates,
  setDefaultCACertificates,
} from 'node:tls'
import { digestOf } from '../../../../protocol/digest.ts'
import {
  bulkModes,
  encodeBulkOrder,
  writeBulkAnswerHeader,
  bulkAskerProof,
  bulkHolderProof,
  type BulkGrant,
  type BulkStatus,
} from '../../../../protocol/messages/bulk.ts'
import { encodeHolders } from '../../../../protocol/messages/chunk.ts'
import { limits } from '../../../../node/peers/limits.ts'
import { bulkLimits } from '../../../../node/peers/bulk/bulk-limits.ts'
import { testCertificate } from '../../../support/test-certificate.ts'
import { until } from '../test-peer.ts'
import { ReceiverEnd, SenderEnd, startWiretap } from './bulk-ends.ts'

for (const mode of bulkModes) {
  test(`${mode}: many chunks come over one connection, verified and kept`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const digests = holder.hold(50)
    const [small] = holder.hold(1, 4096)
    const connection = await asker.opened(holder.grant())
    asker.want(connection, digests)
    asker.want(connection, [small!], 4096, 100)
    await until('all are there', () => asker.outcomes.size === 51)
    assert.deepEqual(new Set(asker.outcomes.values()), new Set(['kept']))
    for (const digest of [...digests, small!]) assert.deepEqual(asker.kept.get(digest), holder.chunks.get(digest))
    holder.sender.check()
    const sent = holder.reports.flatMap((report) => ('sent' in report ? report.sent : []))
    assert.ok(sent.every(({ peer }) => peer === 'peer'))
    assert.equal(
      sent.reduce((sum, { chunks }) => sum + chunks, 0),
      51,
    )
    assert.equal(
      sent.reduce((sum, { bytes }) => sum + bytes, 0),
      50 * 256 * 1024 + 4096,
    )
  })

  test(`${mode}: a chunk that the holder lacks is missing, and the connection goes on`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const [here] = holder.hold(1)
    const connection = await asker.opened(holder.grant())
    asker.want(connection, [digestOf(Buffer.from('elsewhere')), here!])
    await until('both are answered', () => asker.outcomes.size === 2)
    assert.deepEqual([...asker.outcomes.values()], ['missing', 'kept'])
  })

  test(`${mode}: a grant opens one connection, and no second one`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const grant = holder.grant()
    await asker.opened(grant)
    const second = asker.open(grant)
    assert.equal((await asker.ended(second)).code, 'unavailable')
    assert.equal(holder.sender.load.connections, 1)
  })

  test(`${mode}: a grant that is too old opens no connection`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const grant = holder.grant('peer', { lifetimeMs: 5_000 })
    holder.now = 5_000
    assert.equal((await asker.ended(asker.open(grant))).code, 'unavailable')
    assert.equal(holder.sender.load.connections, 0)
  })

  test(`${mode}: the grant of a peer that has left opens no connection`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const grant = holder.grant('peer')
    holder.sender.handle({ revoke: 'peer' })
    assert.equal((await asker.ended(asker.open(grant))).code, 'unavailable')
  })

  test(`${mode}: the connection of a peer that has left ends`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const connection = await asker.opened(holder.grant('peer'))
    holder.sender.handle({ revoke: 'peer' })
    assert.equal((await asker.ended(connection)).code, 'unavailable')
  })

  test(`${mode}: another secret than the grant's opens nothing, and uses the grant up`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const grant = holder.grant()
    assert.equal((await asker.ended(asker.open({ ...grant, secret: randomBytes(32) }))).code, 'unavailable')
    assert.equal((await asker.ended(asker.open(grant))).code, 'unavailable')
    assert.equal(holder.sender.load.connections, 0)
  })

  test(`${mode}: a stranger gets no chunk, whatever he says`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const [digest] = holder.hold(1)
    holder.grant()
    const want = encodeBulkOrder({ order: 'want', id: 1, digest: digest! })
    for (const greeting of [want, Buffer.concat([randomBytes(48), want]), Buffer.from('GET / HTTP/1.1\r\n\r\n')]) {
      const heard: Buffer[] = []
      const stranger = createConnection({ host: '127.0.0.1', port: holder.port })
      stranger.on('data', (bytes: Buffer) => heard.push(bytes)).on('error', () => undefined)
      stranger.end(greeting)
      await until('he is cut off', () => stranger.destroyed)
      // At most a TLS alert.
      assert.ok(Buffer.concat(heard).length <= 7)
    }
    assert.deepEqual(holder.reads, [])
  })

  test(`${mode}: strangers that hold handshakes open are bounded, and an honest peer gets through`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const strangers = Array.from({ length: limits.handshakes.perSource + 8 }, () =>
      createConnection({ host: '127.0.0.1', port: holder.port }).on('error', () => undefined),
    )
    t.after(() => strangers.forEach((stranger) => stranger.destroy()))
    await until('the bound is reached', () => holder.sender.load.handshakes === limits.handshakes.perSource)
    await until('the oldest are dropped', () => strangers.filter(({ destroyed }) => destroyed).length === 8)
    await asker.opened(holder.grant())
  })

  test(`${mode}: somebody at the holder's address without the secret gets nothing from the asker`, async (t) => {
    const asker = new ReceiverEnd(t, { mode })
    const { port, heard } = await startImpostor(t)
    const connection = asker.open({ port, id: randomBytes(16), secret: randomBytes(32) })
    assert.match((await asker.ended(connection)).code, /unavailable|denied/)
    assert.ok(!asker.reports.some((report) => 'opened' in report))
    assert.ok(Buffer.concat(heard).length > 0)
  })

  test(`${mode}: a newer connection of a peer takes the place of its older one`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const asker = new ReceiverEnd(t, { mode })
    const first = await asker.opened(holder.grant('peer'))
    const second = await asker.opened(holder.grant('peer'))
    assert.equal((await asker.ended(first)).code, 'unavailable')
    const [digest] = holder.hold(1)
    asker.want(second, [digest!])
    await until('it works', () => asker.outcomes.get(0) === 'kept')
    assert.equal(holder.sender.load.connections, bulkLimits.connections.perPeer)
  })

  test(`${mode}: a peer that does not read makes the holder read no more than it has memory for`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const digests = holder.hold(64)
    const peer = await openRaw(t, mode, holder.grant())
    peer.pause()
    for (const [id, digest] of digests.entries()) peer.write(encodeBulkOrder({ order: 'want', id, digest }))
    let before = -1
    await until('the connection is full', () => {
      const isQuiet = holder.reads.length === before && holder.sender.load.unsentChunks === bulkLimits.buffers
      before = holder.reads.length
      return isQuiet
    })
    assert.ok(holder.reads.length < digests.length, 'the kernel took everything: the test needs more chunks')
    assert.equal(holder.sender.load.unsentChunks, bulkLimits.buffers)
    for (let checks = 0; checks <= bulkLimits.unreadMs / 1_000; checks++) holder.sender.check()
    await until('it is cut off', () => holder.sender.load.connections === 0)
  })

  test(`${mode}: more wants than the protocol allows end the connection, and blame the peer`, async (t) => {
    const holder = await SenderEnd.start(t, { mode })
    const peer = await openRaw(t, mode, holder.grant('flood'))
    const orders = Array.from({ length: bulkLimits.wants + bulkLimits.buffers + 64 }, (_, id) =>
      encodeBulkOrder({ order: 'want', id, digest: digestOf(Buffer.from(String(id))) }),
    )
    peer.write(Buffer.concat(orders))
    await until('it is blamed', () => holder.reports.some((report) => 'broke' in report && report.broke === 'flood'))
    await until('it is cut off', () => peer.destroyed)
  })
}

test('the TLS handshake is 1.3, with the secret and an ephemeral key exchange', async (t) => {
  const holder = await SenderEnd.start(t)
  const tap = await startWiretap(t, () => holder.port)
  const asker = new ReceiverEnd(t)
  const [digest] = holder.hold(1)
  const connection = await asker.opened(holder.grant('peer', { port: tap.port }))
  asker.want(connection, [digest!])
  await until('it comes', () => asker.outcomes.get(0) === 'kept')
  const hello = parseServerHello(Buffer.concat(tap.holder))
  assert.equal(hello.cipher, 0x1301, 'TLS_AES_128_GCM_SHA256')
  assert.equal(hello.extensions.get(43)?.readUInt16BE(0), 0x0304, 'supported_versions: TLS 1.3')
  assert.equal(hello.extensions.get(41)?.readUInt16BE(0), 0, 'pre_shared_key: the first identity')
  const keyShare = hello.extensions.get(51)
  assert.ok(keyShare !== undefined, 'key_share: psk_dhe_ke')
  assert.ok(keyShare.readUInt16BE(2) >= 32, 'with a public key')
  assert.ok(!Buffer.concat(tap.holder).includes(holder.chunks.get(digest!)!.subarray(0, 32)), 'the chunk is not seen')
})

test('what a TLS connection leaves behind opens no second one', async (t) => {
  const holder = await SenderEnd.start(t)
  const sessions: Buffer[] = []
  const first = await openRaw(t, 'tls', holder.grant(), (session) => sessions.push(session))
  const [digest] = holder.hold(1)
  first.write(encodeBulkOrder({ order: 'want', id: 1, digest: digest! }))
  await until('it was served', () => holder.reads.length === 1)
  let opened = false
  for (const session of sessions) {
    const again = connectTls({ host: '127.0.0.1', port: holder.port, session, rejectUnauthorized: false }, () => {
      opened = true
    })
    again.on('error', () => undefined)
    await until('it is cut off', () => again.destroyed)
  }
  assert.equal(opened, false)
  assert.equal(holder.sender.load.connections, 1)
})

test('a holder that shows a certificate in place of the secret is refused, whoever has signed it', async (t) => {
  const trusted = getCACertificates()
  setDefaultCACertificates([...trusted, testCertificate.cert])
  t.after(() => setDefaultCACertificates(trusted))
  const asker = new ReceiverEnd(t)
  const server = createTlsServer(testCertificate)
  const port = await listen(t, server)
  const connection = asker.open({ port, id: randomBytes(16), secret: randomBytes(32) })
  assert.match((await asker.ended(connection)).code, /unavailable|denied/)
  assert.ok(!asker.reports.some((report) => 'opened' in report))
})

test('packs of small files take few bytes of the connection, and come whole among other chunks', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  const tap = await startWiretap(t, () => holder.port)
  const asker = new ReceiverEnd(t, { mode: 'plain' })
  const packs = Array.from({ length: 50 }, () => {
    const pack = Buffer.alloc(64 * 1024)
    for (let block = 0; block < 16; block++) randomBytes(160).copy(pack, block * 4096)
    return holder.holdThis(pack)
  })
  const others = holder.hold(2, 64 * 1024)
  const zeros = holder.holdThis(Buffer.alloc(64 * 1024))
  const all = [...packs.slice(0, 25), ...others, zeros, ...packs.slice(25)]
  const connection = await asker.opened({ ...holder.grant(), port: tap.port })
  asker.want(connection, all, 64 * 1024)
  await until('all are there', () => asker.outcomes.size === all.length)
  for (const digest of all) assert.deepEqual(asker.kept.get(digest), holder.chunks.get(digest))
  const sentBytes = tap.holder.reduce((sum, bytes) => sum + bytes.length, 0)
  const packBytes = 50 * 16 * (160 + 2)
  assert.ok(sentBytes < packBytes + 2 * 64 * 1024 + all.length * 64, `${sentBytes} bytes`)
})

const length = 256 * 1024
const right = Buffer.alloc(length, 7)
const lies: Record<string, (id: number) => Buffer> = {
  'other bytes': (id) => Buffer.concat([header('chunk', id, length), Buffer.alloc(length)]),
  'a shorter chunk': (id) => Buffer.concat([header('chunk', id, 4096), Buffer.alloc(4096)]),
  'a chunk longer than any': (id) => Buffer.concat([header('chunk', id, 2 ** 20), Buffer.alloc(2 ** 20)]),
  'a chunk that was not wanted': (id) => Buffer.concat([header('chunk', id + 1, length), right]),
  'a chunk twice': (id) => Buffer.concat([header('chunk', id, length), right, header('chunk', id, length), right]),
  'a status that does not exist': (id) => Buffer.concat([Buffer.from([9]), header('chunk', id, length).subarray(1)]),
  'an empty chunk': (id) => header('chunk', id, 0),
  'missing, with bytes': (id) => header('missing', id, 5),
  'a trimmed chunk of other bytes': (id) => trimmed(id, Buffer.alloc((2 * length) / 4096)),
  'a trimmed chunk whose counts have no bytes': (id) => trimmed(id, Buffer.alloc((2 * length) / 4096, 1)),
  'a trimmed chunk with bytes that no count has': (id) => trimmed(id, Buffer.alloc(4096)),
  'a trimmed chunk that is cut short': (id) => trimmed(id, Buffer.alloc(1)),
  'a trimmed chunk that is longer than the chunk': (id) => trimmed(id, Buffer.alloc(length)),
  'an empty trimmed chunk': (id) => header('trimmed', id, 0),
  'others, and names none': (id) => elsewhere(id, encodeHolders([])),
  'others, one without a name': (id) => elsewhere(id, encodeHolders(['a', ''])),
  'more others than are named': (id) => elsewhere(id, encodeHolders(['a', 'b', 'c', 'd'])),
  'others that are no list': (id) => elsewhere(id, Buffer.from([0xff])),
  'others of a chunk that nobody asked for': (id) => elsewhere(id + 1, encodeHolders(['a'])),
}
for (const [lie, answer] of Object.entries(lies)) {
  test(`a holder that answers with ${lie} is blamed, and nothing of it is kept`, async (t) => {
    const asker = new ReceiverEnd(t, { mode: 'plain' })
    const { port, secret } = await startHolder(t, (socket) => socket.write(answer(1)))
    const connection = await asker.opened({ port, id: randomBytes(16), secret })
    asker.want(connection, [digestOf(right)], length, 1)
    assert.equal((await asker.ended(connection)).code, 'invalid')
    assert.equal(asker.kept.size, lie === 'a chunk twice' ? 1 : 0)
  })
}

test('a holder that is cut off in the middle of a chunk is not blamed, and nothing is kept', async (t) => {
  const asker = new ReceiverEnd(t, { mode: 'plain' })
  const { port, secret } = await startHolder(t, (socket) => {
    socket.end(Buffer.concat([header('chunk', 1, length), right.subarray(0, length / 2)]))
  })
  const connection = await asker.opened({ port, id: randomBytes(16), secret })
  asker.want(connection, [digestOf(right)], length, 1)
  assert.equal((await asker.ended(connection)).code, 'unavailable')
  assert.equal(asker.kept.size, 0)
})

test('a holder that trickles bytes and finishes no chunk is given up', async (t) => {
  const asker = new ReceiverEnd(t, { mode: 'plain' })
  let trickled = 0
  const { port, secret } = await startHolder(t, (socket) => {
    socket.write(header('chunk', 1, length))
    const trickle = setInterval(() => socket.write(Buffer.alloc(1), () => trickled++), 5)
    socket.on('close', () => clearInterval(trickle))
  })
  const connection = await asker.opened({ port, id: randomBytes(16), secret })
  asker.want(connection, [digestOf(right)], length, 1)
  for (let checks = 0; checks < bulkLimits.stallMs / 1_000; checks++) {
    const before = trickled
    await until('it trickles', () => trickled > before + 2)
    assert.ok(!asker.reports.some((report) => 'closed' in report), 'given up too early')
    asker.receiver.check()
  }
  asker.receiver.check()
  assert.equal((await asker.ended(connection)).code, 'timeout')
})

test('a holder that never finishes the handshake is given up', async (t) => {
  const asker = new ReceiverEnd(t)
  const port = await listen(t, createServer())
  const connection = asker.open({ port, id: randomBytes(16), secret: randomBytes(32) })
  for (let checks = 0; checks <= bulkLimits.openMs / 1_000; checks++) asker.receiver.check()
  assert.equal((await asker.ended(connection)).code, 'timeout')
})

test('a connection on which nothing is wanted is closed', async (t) => {
  const holder = await SenderEnd.start(t)
  const asker = new ReceiverEnd(t)
  const connection = await asker.opened(holder.grant())
  for (let checks = 0; checks <= bulkLimits.idleMs / 1_000; checks++) asker.receiver.check()
  assert.equal((await asker.ended(connection)).code, 'closed')
  await until('the holder knows', () => holder.sender.load.connections === 0)
})

test('a chunk that the disk does not take is not kept, and its holder is not blamed', async (t) => {
  const holder = await SenderEnd.start(t)
  const asker = new ReceiverEnd(t)
  const digests = holder.hold(2)
  asker.keep = () => {
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
  }
  const connection = await asker.opened(holder.grant())
  asker.want(connection, digests)
  await until('both are answered', () => asker.outcomes.size === 2)
  assert.deepEqual([...asker.outcomes.values()], ['unkept', 'unkept'])
  const [told] = asker.reports.filter((report) => 'unwritable' in report)
  assert.deepEqual(told, { unwritable: { message: 'no space left on device', errno: 'ENOSPC' } })
  assert.ok(!asker.reports.some((report) => 'closed' in report))
})

test('a peer that goes on reading after a pause gets everything', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  const digests = holder.hold(200)
  const peer = await openRaw(t, 'plain', holder.grant())
  peer.pause()
  for (const [id, digest] of digests.entries()) peer.write(encodeBulkOrder({ order: 'want', id, digest }))
  await until('the holder has stopped', () => holder.sender.load.unsentChunks === bulkLimits.buffers)
  let taken = 0
  peer.on('data', (bytes: Buffer) => {
    taken += bytes.length
  })
  peer.resume()
  await until('all has come', () => taken === 200 * (256 * 1024 + 9))
})

test('wants that are cancelled are not sent', async (t) => {
  const holder = await SenderEnd.start(t)
  const asker = new ReceiverEnd(t)
  const digests = holder.hold(40)
  const connection = await asker.opened(holder.grant())
  asker.want(connection, digests)
  for (let id = 0; id < 40; id++) asker.receiver.handle({ cancel: connection, id })
  await until('all are answered', () => asker.outcomes.size === 40)
  assert.ok(holder.reads.length <= bulkLimits.buffers + 1, `${holder.reads.length} chunks were read`)
  assert.equal(
    [...asker.outcomes.values()].filter((outcome) => outcome === 'cancelled').length,
    40 - holder.reads.length,
  )
})

test('a want that is raised comes before all that were there before it', async (t) => {
  const holder = await SenderEnd.start(t)
  const asker = new ReceiverEnd(t)
  const digests = holder.hold(40)
  const connection = await asker.opened(holder.grant())
  asker.want(connection, digests)
  asker.receiver.handle({ raise: connection, id: 39 })
  await until('all are answered', () => asker.outcomes.size === 40)
  const place = holder.reads.indexOf(digests[39]!)
  assert.ok(place >= 0 && place <= bulkLimits.buffers, `it came in place ${place}`)
  assert.equal(asker.outcomes.get(39), 'kept')
})

test('peers take turns: one that wants much does not keep another waiting', async (t) => {
  const holder = await SenderEnd.start(t)
  const greedy = new ReceiverEnd(t)
  const modest = new ReceiverEnd(t)
  const many = holder.hold(300)
  const few = holder.hold(10)
  const greedyConnection = await greedy.opened(holder.grant('greedy'))
  const modestConnection = await modest.opened(holder.grant('modest'))
  greedy.want(greedyConnection, many)
  modest.want(modestConnection, few)
  await until('the modest one has all', () => modest.outcomes.size === 10)
  const before = holder.reads.indexOf(few[9]!) - 9
  assert.ok(before <= 60, `${before} chunks were sent to the greedy one meanwhile`)
})

function trimmed(id: number, form: Buffer): Buffer {
  return Buffer.concat([header('trimmed', id, form.length), form])
}

function elsewhere(id: number, names: Uint8Array): Buffer {
  return Buffer.concat([header('elsewhere', id, names.length), names])
}

function header(status: BulkStatus, id: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(9)
  writeBulkAnswerHeader(bytes, { status, id, lengthBytes })
  return bytes
}

async function listen(context: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => sockets.add(socket.on('error', () => undefined)))
  context.after(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as { port: number }).port
}

/** A holder of plain mode that proves the secret, and answers the first order in its own way. */
async function startHolder(
  context: TestContext,
  answer: (socket: Socket) => void,
): Promise<{ port: number; secret: Buffer }> {
  const secret = randomBytes(32)
  const server = createServer((socket) => {
    socket.once('data', () => {
      socket.write(bulkHolderProof(secret))
      socket.once('data', () => answer(socket))
    })
  })
  return { port: await listen(context, server), secret }
}

/** Answers whoever connects with random bytes. */
async function startImpostor(context: TestContext): Promise<{ port: number; heard: Buffer[] }> {
  const heard: Buffer[] = []
  const server = createServer((socket) => {
    socket.on('data', (bytes: Buffer) => {
      heard.push(bytes)
      socket.write(randomBytes(64))
    })
  })
  return { port: await listen(context, server), heard }
}

/** Opens the connection of a grant, as a peer that then says what the test makes it say. */
async function openRaw(
  context: TestContext,
  mode: 'tls' | 'plain',
  { port, id, secret }: BulkGrant,
  onSession: (session: Buffer) => void = () => undefined,
): Promise<Socket> {
  if (mode === 'plain') {
    const socket = createConnection({ host: '127.0.0.1', port })
    context.after(() => socket.destroy())
    socket.on('error', () => undefined)
    socket.write(Buffer.concat([id, bulkAskerProof(secret)]))
    await new Promise<void>((resolve) =>
      socket.on('readable', function onReadable() {
        if (socket.read(32) === null) return
        socket.off('readable', onReadable)
        resolve()
      }),
    )
    return socket
  }
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    ciphers: 'TLS_AES_128_GCM_SHA256',
    pskCallback: () => ({ psk: secret, identity: Buffer.from(id).toString('hex') }),
    checkServerIdentity: () => undefined,
  })
  context.after(() => socket.destroy())
  socket.on('error', () => undefined).on('session', onSession)
  await new Promise<void>((resolve) => socket.once('secureConnect', () => resolve()))
  return socket
}

/** RFC 8446, section 4.1.3. */
function parseServerHello(bytes: Buffer): { cipher: number; extensions: Map<number, Buffer> } {
  assert.equal(bytes[0], 22, 'a handshake record')
  assert.equal(bytes[5], 2, 'ServerHello')
  let at = 9 + 2 + 32
  at += 1 + bytes[at]!
  const cipher = bytes.readUInt16BE(at)
  at += 3
  const end = at + 2 + bytes.readUInt16BE(at)
  const extensions = new Map<number, Buffer>()
  for (at += 2; at < end;) {
    const lengthBytes = bytes.readUInt16BE(at + 2)
    extensions.set(bytes.readUInt16BE(at), bytes.subarray(at + 4, at + 4 + lengthBytes))
    at += 4 + lengthBytes
  }
  return { cipher, extensions }
}
