import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { MultiaddrConnection } from '@libp2p/interface'
import { gatherWrites } from '../../../../node/peers/admission/gathered-writes.ts'

const writesMany = '_writev'

async function openSocket(t: TestContext): Promise<{ socket: Socket; far: Socket }> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  const [far] = await accepted
  t.after(() => void (socket.destroy(), far.destroy()))
  return { socket, far }
}

interface Sending {
  sendData: (pieces: Uint8Array[]) => { canSendMore: boolean }
  sendReset: () => void
}

/** As libp2p's TCP connection sends: a write for each piece. */
function connectionOf(socket: Socket): Sending {
  const sendData = (pieces: Uint8Array[]): { canSendMore: boolean } => ({
    canSendMore: pieces.map((piece) => socket.write(piece)).every(Boolean),
  })
  return { socket, sendData, sendReset: () => void socket.destroy() } as Sending
}

test('what a connection sends in one turn is written together', async (t) => {
  const { socket, far } = await openSocket(t)
  const connection = connectionOf(socket)
  gatherWrites(connection as unknown as MultiaddrConnection)
  const writes: number[] = []
  const writev = socket[writesMany]!.bind(socket)
  socket[writesMany] = (pieces, callback) => {
    writes.push(pieces.length)
    writev(pieces, callback)
  }
  for (const text of ['a', 'b', 'c']) connection.sendData([Buffer.from(text), Buffer.from('-')])
  assert.deepEqual(writes, [], 'nothing is written before the turn is over')
  const [bytes] = (await once(far, 'data')) as [Buffer]
  assert.equal(bytes.toString(), 'a-b-c-')
  assert.deepEqual(writes, [6])
  connection.sendData([Buffer.from('d')])
  assert.equal(((await once(far, 'data')) as [Buffer])[0].toString(), 'd')
})

test('what a socket has enough of is written at once, and it takes more when it has been', async (t) => {
  const { socket, far } = await openSocket(t)
  const connection = connectionOf(socket)
  gatherWrites(connection as unknown as MultiaddrConnection)
  const large = Buffer.alloc(8 * 1024 * 1024)
  const { canSendMore } = connection.sendData([large])
  assert.equal(canSendMore, false)
  assert.equal(socket.writableCorked, 0)
  const drained = once(socket, 'drain')
  let readBytes = 0
  far.on('data', ({ length }: Buffer) => (readBytes += length))
  await drained
  await turn()
  connection.sendData([Buffer.from('x')])
  while (readBytes < large.length + 1) await once(far, 'data')
  assert.equal(readBytes, large.length + 1)
})

test('what was sent before a reset is written', async (t) => {
  const { socket, far } = await openSocket(t)
  const connection = connectionOf(socket)
  gatherWrites(connection as unknown as MultiaddrConnection)
  connection.sendData([Buffer.from('last words')])
  connection.sendReset()
  assert.equal(((await once(far, 'data')) as [Buffer])[0].toString(), 'last words')
})

test('a connection that keeps its socket elsewhere is refused', () => {
  assert.throws(() => gatherWrites({} as MultiaddrConnection), TypeError)
})
