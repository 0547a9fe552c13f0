import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Libp2p, PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import { silentLog } from '../../../node/base/log.ts'
import { Dialler } from '../../../node/peers/dialler.ts'
import { limits } from '../../../node/peers/limits.ts'

const ids = [
  '12D3KooWBMHgTRGXfJ5Zf4dBvZrdXpQUuV6WWgGvBWKGYUrHZQbh',
  '12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf',
  '12D3KooWRm8J3iL796zPFi2EtGGtUJn58AG67gcRzQ4FENEemvpg',
] as const
const [bad, honest, third] = ids

/** Peer ids that need not be real, because nothing is dialled with them. */
const named = (n: number): string => `peer-${n}`

/** A dialler whose host is a list of dials; time passes in steps of a quarter of a second. */
class World {
  nowMs = 0
  readonly dials: { atMs: number; address: string }[] = []
  readonly connected = new Set<string>()
  /** The peers that addresses lead to. */
  readonly reachable = new Map<string, string>()
  readonly dialler: Dialler
  readonly #tick: () => void

  constructor(
    t: { mock: { timers: { enable: (options: { apis: ['setInterval'] }) => void; tick: (ms: number) => void } } },
    { listen = ['/ip4/0.0.0.0/tcp/4100'], bootstrap = [] as string[] } = {},
  ) {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const id = (text: string): PeerId => ({ toString: () => text }) as PeerId
    const host = {
      peerId: id('me'),
      getPeers: () => [...this.connected].map(id),
      dial: async (addresses: Multiaddr | Multiaddr[]) => {
        for (const address of [addresses].flat()) {
          this.dials.push({ atMs: this.nowMs, address: String(address) })
          const peer = this.reachable.get(String(address).replace(/\/p2p\/.*/, ''))
          if (peer === undefined) continue
          this.connected.add(peer)
          return await Promise.resolve({ remotePeer: id(peer) })
        }
        return await Promise.reject(new Error('refused'))
      },
    } as unknown as Pick<Libp2p, 'peerId' | 'getPeers' | 'dial'>
    this.dialler = new Dialler({ host, log: silentLog, now: () => this.nowMs, random: () => 0 }, { bootstrap, listen })
    this.#tick = () => t.mock.timers.tick(250)
    this.dialler.start()
  }

  async pass(ms: number): Promise<void> {
    const end = this.nowMs + ms
    while (this.nowMs < end) {
      this.nowMs += 250
      this.#tick()
      await new Promise(setImmediate)
      await new Promise(setImmediate)
    }
  }

  /** Dials of an address, without the peer id. */
  dialsOf(pattern: RegExp): number {
    return this.dials.filter(({ address }) => pattern.test(address)).length
  }
}

test('a member is dialled where it says it is, whatever others say of it', async (t) => {
  const world = new World(t)
  world.dialler.learn({ peer: honest, addresses: ['/ip4/10.0.0.1/tcp/1'] })
  world.dialler.hear({ peer: honest, addresses: ['/ip4/10.6.6.6/tcp/22'] }, bad)
  await world.pass(60_000)
  assert.ok(world.dialsOf(/10\.0\.0\.1/) > 0)
  assert.equal(world.dialsOf(/10\.6\.6\.6/), 0)
})

test('a member that says it is nowhere is not looked for where others say it is', async (t) => {
  const world = new World(t)
  world.dialler.hear({ peer: honest, addresses: ['/ip4/10.6.6.6/tcp/22'] }, bad)
  world.dialler.learn({ peer: honest, addresses: [] })
  world.dialler.hear({ peer: honest, addresses: ['/ip4/10.6.6.6/tcp/22'] }, bad)
  await world.pass(60_000)
  assert.equal(world.dials.length, 0)
})

test('what others say of a member is a hint for a first dial, and ends when the member speaks for itself', async (t) => {
  const world = new World(t)
  world.dialler.hear({ peer: honest, addresses: ['/ip4/10.6.6.6/tcp/22'] }, bad)
  await world.pass(250)
  assert.equal(world.dialsOf(/10\.6\.6\.6\/tcp\/22\/p2p\/12D3KooWGzx/), 1)
  world.dialler.learn({ peer: honest, addresses: ['/ip4/10.0.0.1/tcp/1'] })
  await world.pass(60_000)
  assert.equal(world.dialsOf(/10\.6\.6\.6/), 1)
  assert.ok(world.dialsOf(/10\.0\.0\.1/) > 0)
})

test('a lie about a member does not keep the truth away', async (t) => {
  const world = new World(t)
  world.reachable.set('/ip4/10.0.0.1/tcp/1', honest)
  world.dialler.hear({ peer: honest, addresses: ['/ip4/10.6.6.6/tcp/22'] }, bad)
  world.dialler.hear({ peer: honest, addresses: ['/ip4/10.0.0.1/tcp/1'] }, third)
  await world.pass(3_000)
  assert.deepEqual([...world.connected], [honest])
})

test('the peer id of a hint is the one that it names, not one that stands in its address', async (t) => {
  const world = new World(t)
  world.dialler.hear({ peer: honest, addresses: [`/ip4/10.0.0.1/tcp/1/p2p/${bad}`] }, third)
  await world.pass(250)
  assert.deepEqual(
    world.dials.map(({ address }) => address),
    [`/ip4/10.0.0.1/tcp/1/p2p/${honest}`],
  )
})

test('addresses of this host, of a link or of a group are not dialled, whoever tells them', async (t) => {
  const world = new World(t)
  const refused = [
    '/ip4/127.0.0.1/tcp/22',
    '/ip4/127.9.9.9/tcp/22',
    '/ip4/0.0.0.0/tcp/22',
    '/ip4/169.254.169.254/tcp/80',
    '/ip4/224.0.0.1/tcp/1',
    '/ip4/255.255.255.255/tcp/1',
    '/ip6/::1/tcp/22',
    '/ip6/::/tcp/22',
    '/ip6/::ffff:127.0.0.1/tcp/22',
    '/ip6/fe80::1/tcp/22',
    '/ip6/ff02::1/tcp/22',
    '/dns4/localhost/tcp/22',
    '/unix/run/docker.sock',
    '/ip4/10.0.0.1/udp/53',
    '/ip4/10.0.0.1/tcp/1/ws',
    'garbage',
  ]
  for (const [i, address] of refused.entries()) {
    world.dialler.hear({ peer: named(i), addresses: [address] }, bad)
    world.dialler.learn({ peer: named(100 + i), addresses: [address] })
  }
  world.dialler.hear({ peer: honest, addresses: [...refused.slice(0, 3), '/ip4/10.0.0.1/tcp/1'] }, bad)
  await world.pass(250)
  assert.deepEqual(
    world.dials.map(({ address }) => address),
    [`/ip4/10.0.0.1/tcp/1/p2p/${honest}`],
  )
})

test('a host that listens on loopback dials members there', async (t) => {
  const world = new World(t, { listen: ['/ip4/127.0.0.1/tcp/0'] })
  world.dialler.hear({ peer: honest, addresses: ['/ip4/127.0.0.1/tcp/1', '/ip4/169.254.0.1/tcp/1'] }, bad)
  await world.pass(250)
  assert.deepEqual(
    world.dials.map(({ address }) => address),
    [`/ip4/127.0.0.1/tcp/1/p2p/${honest}`],
  )
})

/** How many dials a bucket lets through in a minute, from full. */
const inMinute = ({ perMinute, burst }: { perMinute: number; burst: number }): number => burst + perMinute

const floods: [string, number, (world: World) => void][] = [
  [
    'of one endpoint, named by many',
    inMinute(limits.dials.perEndpoint),
    ({ dialler }) => {
      for (let i = 0; i < 200; i++) dialler.learn({ peer: `${i}`, addresses: ['/ip4/10.6.6.6/tcp/22'] })
    },
  ],
  [
    'of one address with many ports, named by many',
    inMinute(limits.dials.perAddress),
    ({ dialler }) => {
      for (let i = 0; i < 200; i++) dialler.learn({ peer: `${i}`, addresses: [`/ip4/10.6.6.6/tcp/${i + 1}`] })
    },
  ],
  [
    'of many addresses, named by one',
    inMinute(limits.dials.perTeller),
    ({ dialler }) => {
      for (let i = 0; i < 200; i++) dialler.hear({ peer: `${i}`, addresses: [`/ip4/10.6.6.${i}/tcp/1`] }, bad)
    },
  ],
  [
    'of many addresses, named by many',
    inMinute(limits.dials.inAll),
    ({ dialler }) => {
      for (let i = 0; i < 2000; i++)
        dialler.learn({ peer: `${i}`, addresses: [`/ip4/10.6.${i >> 8}.${i & 255}/tcp/1`] })
    },
  ],
]
for (const [what, most, flood] of floods) {
  test(`dials that fail are bounded: ${what}`, async (t) => {
    const world = new World(t)
    flood(world)
    await world.pass(60_000)
    const { length } = world.dials
    assert.ok(length >= most / 2 && length <= most, `${length} dials, of ${most} that are allowed`)
  })
}

test('a member that is well is connected at once, however many there are', async (t) => {
  const world = new World(t)
  for (let i = 0; i < 1000; i++)
    world.dialler.hear({ peer: named(i), addresses: [`/ip4/10.0.${i >> 8}.${i & 255}/tcp/1`] }, third)
  for (let i = 0; i < 1000; i++) world.reachable.set(`/ip4/10.0.${i >> 8}.${i & 255}/tcp/1`, named(i))
  await world.pass(3_000)
  assert.ok(world.connected.size > 150, `${world.connected.size} connected`)
})

test('members that are remembered are bounded; one that never answered goes first, of who named most', async (t) => {
  const world = new World(t)
  const { dialler } = world
  for (let teller = 0; teller < 3; teller++)
    for (let i = 0; i < 1100; i++)
      dialler.hear({ peer: named(teller * 10_000 + i), addresses: ['/ip4/10.6.6.6/tcp/1'] }, `teller-${teller}`)
  assert.equal(dialler.size, 3 * limits.members.hintsPerTeller)
  for (let i = 0; i < 1100; i++) dialler.learn({ peer: `member-${i}`, addresses: ['/ip4/10.0.0.1/tcp/1'] })
  assert.equal(dialler.size, limits.members.inAll)
  dialler.hear({ peer: 'new', addresses: ['/ip4/10.0.0.1/tcp/1'] }, 'honest')
  for (let i = 1100; i < 5000; i++) dialler.learn({ peer: `member-${i}`, addresses: ['/ip4/10.0.0.1/tcp/1'] })
  assert.equal(dialler.size, limits.members.inAll)
})

test('a member that never answered is forgotten sooner than one that did', async (t) => {
  const world = new World(t)
  world.dialler.hear({ peer: bad, addresses: ['/ip4/10.0.0.6/tcp/1'] }, third)
  world.dialler.learn({ peer: honest, addresses: ['/ip4/10.0.0.1/tcp/1'] })
  assert.equal(world.dialler.size, 2)
  await world.pass(limits.members.forgetUnprovenMs + 1_000)
  assert.equal(world.dialler.size, 1)
  await world.pass(limits.members.forgetMs)
  assert.equal(world.dialler.size, 0)
})

test('only a few addresses of a member are dialled, and few tellers are believed about one', async (t) => {
  const world = new World(t)
  world.dialler.learn({ peer: honest, addresses: Array.from({ length: 32 }, (_, i) => `/ip4/10.0.0.${i + 1}/tcp/1`) })
  await world.pass(250)
  assert.equal(world.dials.length, limits.members.dialledAddresses)
  for (let i = 0; i < 10; i++)
    world.dialler.hear({ peer: third, addresses: [`/ip4/10.0.1.${i + 1}/tcp/1`] }, `teller-${i}`)
  await world.pass(100_000)
  const tried = world.dials.map(({ address }) => address).filter((address) => address.includes('/10.0.1.'))
  assert.equal(new Set(tried).size, limits.members.tellersPerMember)
})

test('a peer whose connections do not last is dialled ever more seldom', async (t) => {
  const world = new World(t, { bootstrap: ['/ip4/10.0.0.1/tcp/1'] })
  world.reachable.set('/ip4/10.0.0.1/tcp/1', honest)
  for (let i = 0; i < 480; i++) {
    world.connected.clear()
    await world.pass(250)
  }
  assert.ok(world.dials.length < 20, `${world.dials.length} dials in two minutes`)
})

test('a peer of another region is not dialled for a while, a bootstrap peer seldom', async (t) => {
  const world = new World(t, { bootstrap: ['/ip4/10.0.0.2/tcp/1'] })
  world.reachable.set('/ip4/10.0.0.2/tcp/1', bad)
  await world.pass(250)
  world.dialler.learn({ peer: honest, addresses: ['/ip4/10.0.0.1/tcp/1'] })
  for (const peer of [honest, bad]) world.dialler.avoid(peer, limits.otherRegionMs)
  world.connected.clear()
  world.dials.length = 0
  for (let i = 0; i < 240; i++) {
    world.connected.clear()
    await world.pass(250)
  }
  assert.deepEqual([world.dialsOf(/10\.0\.0\.1/), world.dialsOf(/10\.0\.0\.2/) <= 5], [0, true])
})
