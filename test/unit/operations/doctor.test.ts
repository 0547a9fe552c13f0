import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Check } from '../../../node/control/api.ts'
import { DoctorOperation, type DoctorParts } from '../../../node/operations/doctor.ts'
import { ImageRequests } from '../../../node/operations/image-request.ts'
import { transportError } from '../../../node/registry/transport-error.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

const { signal } = new AbortController()

interface Scene {
  /** The answer of each connected member: whether it reaches the port, and how far its clock is off (ms). */
  members?: ({ reached: boolean; offMs?: number } | Error)[]
  known?: number
  hasBootstrap?: boolean
  resolve?: () => Promise<object>
  range?: () => Promise<Uint8Array>
  image?: string
}

async function look(scene: Scene): Promise<Record<string, Check>> {
  const { members = [], known = members.length, image, hasBootstrap = false } = scene
  const layer = { digest: 'sha256:1', sizeBytes: 5 }
  const parts = {
    requests: new ImageRequests({ platform: 'linux/amd64' }),
    registry: {
      resolve: scene.resolve ?? (async () => await Promise.resolve({ reference: 'r', platform: 'p', layers: [layer] })),
      range: scene.range ?? (async () => await Promise.resolve(Buffer.alloc(1))),
    },
    network: {
      multiaddrs: () => ['/ip4/10.0.0.1/tcp/4100/p2p/x', '/ip4/127.0.0.1/tcp/4100/p2p/x'],
      membership: {
        peers: () => members.map((_, index) => ({ peer: `id-${index}`, name: `host-${index}` })),
        roster: { size: known + 1 },
      },
      reach: {
        ask: async (peer: string, ports: readonly number[]) => {
          assert.deepEqual(ports, [4100])
          const member = members[Number(peer.slice(3))]!
          if (member instanceof Error) throw member
          const timeMs = Date.now() + (member.offMs ?? 0)
          return await Promise.resolve({ timeMs, address: '10.0.0.1', reached: [member.reached], tookMs: 0 })
        },
      },
    },
  } as unknown as DoctorParts
  const config = { region: 'lab', registryMirror: ['docker.io=https://u:s3cr3t@m'] }
  const doctor = new DoctorOperation(parts, { config, stateDir: '/state', hasBootstrap })
  const result = await doctor.run(image === undefined ? {} : { image }, { signal, onProgress: () => undefined })
  assert.ok(!JSON.stringify(result.config).includes('s3cr3t'))
  return Object.fromEntries(result.checks.map((each) => [each.name, each]))
}

const reached = { reached: true }
const unreached = { reached: false }

test('a host that members reach, with the right clock, is well', async () => {
  const checks = await look({ members: [reached, reached] })
  assert.deepEqual(
    Object.values(checks).map(({ state }) => state),
    ['ok', 'ok', 'ok'],
  )
  assert.match(checks['reached by peers']!.found, /port 4100 was reached by host-0 at 10\.0\.0\.1/)
})

test('a port that no member reaches is a problem, one that some do not reach a warning', async () => {
  const none = (await look({ members: [unreached, unreached] }))['reached by peers']!
  assert.equal(none.state, 'problem')
  assert.match(none.advice!, /open TCP port 4100/)
  assert.equal((await look({ members: [unreached, reached] }))['reached by peers']!.state, 'warning')
})

test('members that cannot say are left out, and do not hide those that can', async () => {
  const old = new P2pfsError('unavailable', 'protocol unknown')
  assert.equal((await look({ members: [old, reached] }))['reached by peers']!.state, 'ok')
  const unsaid = (await look({ members: [old] }))['reached by peers']!
  assert.deepEqual([unsaid.state, /host-0: protocol unknown/.test(unsaid.found)], ['left-out', true])
})

test('a clock is compared with the middle one of members', async () => {
  const state = async (...offMs: number[]): Promise<string> =>
    (await look({ members: offMs.map((off) => ({ reached: true, offMs: off })) }))['clock']!.state
  assert.equal(await state(0, 0, 900_000), 'ok')
  assert.equal(await state(10_000, 10_000, 0), 'warning')
  assert.equal(await state(-900_000, -900_000, 0), 'problem')
})

test('a host alone is a problem only where it should not be', async () => {
  assert.equal((await look({}))['region']!.state, 'ok')
  assert.match((await look({ hasBootstrap: true }))['region']!.advice!, /--bootstrap/)
  assert.equal((await look({ known: 2 }))['region']!.state, 'problem')
})

test('a registry is asked for the image and a byte of a layer', async () => {
  const image = 'host:5000/app:v1'
  assert.equal((await look({}))['registry'], undefined)
  const { registry, layers } = await look({ image })
  assert.deepEqual([registry!.state, layers!.state], ['ok', 'ok'])
  for (const [code, advice] of [
    ['denied', /docker login host:5000/],
    ['missing', /tag/],
    ['timeout', /DNS/],
  ] as const) {
    const resolve = async (): Promise<never> => await Promise.reject(new P2pfsError(code, 'so it is'))
    const { registry: refused } = await look({ image, resolve })
    assert.deepEqual([refused!.state, refused!.found], ['problem', 'so it is'])
    assert.match(refused!.advice!, advice)
  }
  const cause = Object.assign(new Error('no'), { code: 'CERT_HAS_EXPIRED' })
  const expired = transportError(new URL('https://host:5000/'), cause)
  const { registry: distrusted } = await look({ image, resolve: async () => await Promise.reject(expired) })
  assert.equal(distrusted!.advice, undefined, 'credentials do not help where a certificate is not good')
  const range = async (): Promise<never> => await Promise.reject(new P2pfsError('unsupported', 'no ranges'))
  assert.equal((await look({ image, range }))['layers']!.state, 'warning')
  assert.equal((await look({ image: 'local:app' }))['registry']!.state, 'left-out')
  await assert.rejects(look({ image: 'Upper' }), /lower case/)
})
