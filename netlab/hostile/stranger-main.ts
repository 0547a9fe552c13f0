/**
 * A program: a stranger, who does not have the region's key, at the port of one daemon. It does what its argument says
 * until its standard input ends, and then prints what came of it as one line of JSON.
 */
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import type { StrangerCounts, StrangerOrders } from './stranger-orders.ts'
import { strangerMessages } from './stranger-messages.ts'

const { host, port, connectionsPerSecond, halfOpen, sources } = JSON.parse(process.argv[2] ?? '') as StrangerOrders

const counts: StrangerCounts = { opened: 0, refused: 0, heardBytes: 0, longestHeardBytes: 0, heldAtEnd: 0 }
const held = new Set<Socket>()
/** How often the flood is topped up (ms). */
const tickMs = 20
/** Half-open connections that are opened in a second at most, those included that were closed. */
const reopenedPerSecond = 2_000
let turn = 0

/** Opens one connection. @param greeting what it says at once; undefined: nothing, and it stays */
function open(greeting: Buffer | undefined): void {
  const localAddress = sources[turn++ % sources.length]
  const socket = connect({ host, port, ...(localAddress !== undefined && { localAddress }) })
  let heardBytes = 0
  socket
    .on('connect', () => {
      counts.opened++
      if (greeting !== undefined) socket.write(greeting)
    })
    .on('data', ({ length }: Buffer) => {
      heardBytes += length
      counts.heardBytes += length
      counts.longestHeardBytes = Math.max(counts.longestHeardBytes, heardBytes)
    })
    .on('error', () => undefined)
    .on('close', () => {
      held.delete(socket)
      if (heardBytes === 0) counts.refused++
    })
  held.add(socket)
}

let owed = 0
let greetings = 0
const flood = setInterval(() => {
  for (owed += (connectionsPerSecond * tickMs) / 1000; owed >= 1; owed--) {
    const messages = strangerMessages
    const message = messages[greetings++ % messages.length]
    open(message?.() ?? randomBytes(64))
  }
  // Those that the daemon has closed are opened again.
  const most = Math.ceil((reopenedPerSecond * tickMs) / 1000)
  for (let missing = Math.min(halfOpen - held.size, most); missing > 0; missing--) open(undefined)
}, tickMs)

await text(process.stdin)
clearInterval(flood)
counts.heldAtEnd = held.size
process.stdout.write(`${JSON.stringify(counts)}\n`, () => process.exit())
