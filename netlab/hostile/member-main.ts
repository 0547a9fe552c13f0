/**
 * A program: a bad member of a region, with any number of identities. It does what its argument says until its standard
 * input ends, and then prints what came of it as one line of JSON.
 */
import { text } from 'node:stream/consumers'
import { BadMember } from './bad-member.ts'
import { Forger } from './forger.ts'
import type { MemberCounts, MemberOrders } from './member-orders.ts'

const orders = JSON.parse(process.argv[2] ?? '') as MemberOrders
const counts: MemberCounts = {
  connected: 0,
  connectedAtEnd: 0,
  wants: 0,
  objectRequests: 0,
  importRequests: 0,
  queries: 0,
  claims: 0,
  flooded: 0,
}
const forger = new Forger({
  target: orders.targets[0] ?? '',
  ...(orders.passedOff !== undefined && { passedOff: orders.passedOff }),
})
const knowledge = { segmentCounts: new Map(), counts, forger }
// No act of a target may end this program.
process.on('uncaughtException', () => undefined).on('unhandledRejection', () => undefined)
const members: BadMember[] = []
for (let i = 0; i < orders.identities; i++) members.push(await BadMember.start(orders, knowledge))
if (orders.passedOff !== undefined && orders.floods.length > 0) await members[0]?.learnChunks(orders.passedOff)
counts.connected = members.filter(({ isConnected }) => isConnected).length
process.stdout.write('ready\n')
for (const member of members) member.flood()
await text(process.stdin)
counts.connectedAtEnd = members.filter(({ isConnected }) => isConnected).length
process.stdout.write(`${JSON.stringify(counts)}\n`, () => process.exit())
