import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { MountResult } from '../../node/control/api.ts'
import { callControl } from '../hosts/control-call.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { debianImages } from '../images/images.ts'
import { Registry } from '../registry/registry.ts'
import { formatTable } from './table.ts'

const help = `Usage: npm run outage -- [options]

Hosts mount an image of their region by its tag while the registry is dead: two hosts that know nothing, one after the other,
each twice. Nobody has asked for the tag within --tag-max-age.

  --rounds N   [3]
  --json       print the figures as JSON
`

/** Nobody asks for a tag again within this time (ms). */
const tagMaxAgeMs = 1_000

const { values: args } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (args.help) {
  process.stdout.write(help)
  process.exit(0)
}

await using network = await Network.create()
const registry = await Registry.start(await network.addHost('registry'))
const image = await registry.push((await debianImages()).gzip, 'lab/debian:1')
const options = { insecureRegistries: [registry.authority], env: { P2PFS_TAG_MAX_AGE: `${tagMaxAgeMs / 1000}s` } }
const first = await NodeProcess.start(await network.addHost('first'), options)
await first.seed(image)
const cold: LabHost[] = [await network.addHost('second'), await network.addHost('third')]

/** How the registry dies. */
const kinds: Record<string, { die: () => Promise<void>; live: () => Promise<void> }> = {
  'answers at once': { die: async () => await Promise.resolve(), live: async () => await Promise.resolve() },
  'drops packets': {
    die: async () => await registry.host.block('DROP'),
    live: async () => await registry.host.unblock(),
  },
  'accepts and is silent': {
    die: async () => await Promise.resolve(registry.pause()),
    live: async () => await Promise.resolve(registry.resume()),
  },
  'refuses connections': {
    die: async () => await registry.host.block('REJECT'),
    live: async () => await registry.host.unblock(),
  },
}

/** @returns how long the mount took (ms) */
async function mount(node: NodeProcess, name: string): Promise<number> {
  const directory = join(node.host.directory, name)
  await node.host.run('mkdir', ['-p', directory])
  const beginMs = performance.now()
  const { resolution } = await callControl<MountResult>(node.controlSocket, 'POST /v1/mounts', { image, directory })
  const ms = performance.now() - beginMs
  if (resolution !== 'last-known' && resolution !== 'registry') throw new Error(`mounted as ${resolution}`)
  return ms
}

const rows: { kind: string; ms: number[] }[] = []
for (let round = 0; round < Number(args.rounds); round++)
  for (const [kind, { die, live }] of Object.entries(kinds)) {
    const nodes = []
    for (const host of cold) nodes.push(await NodeProcess.startEmpty(host, { ...options, bootstrap: [first] }))
    for (const node of nodes)
      await node.whenStatus('it meets the region', ({ peers }) => peers.length === 2, { timeoutMs: 30_000 })
    await first.seed(image)
    await sleep(tagMaxAgeMs + 100)
    await die()
    const ms: number[] = []
    for (const node of nodes) {
      ms.push(await mount(node, 'one'), await mount(node, 'two'))
      await sleep(tagMaxAgeMs + 100)
    }
    await live()
    rows.push({ kind, ms })
    process.stderr.write(`outage: ${kind}: ${ms.map((value) => value.toFixed(0)).join(', ')} ms\n`)
    for (const node of nodes) {
      for (const name of ['one', 'two']) await node.unmount(join(node.host.directory, name))
      await node.stop()
    }
  }
await first.stop()

if (args.json) process.stdout.write(`${JSON.stringify(rows)}\n`)
else {
  const heading = ['registry', 'first host, ms', 'again', 'second host, ms', 'again']
  const cells = Object.keys(kinds).map((kind) => {
    const ofKind = rows.filter((row) => row.kind === kind)
    const column = (i: number): string => ofKind.map(({ ms }) => ms[i]!.toFixed(0)).join(', ')
    return [kind, column(0), column(1), column(2), column(3)]
  })
  process.stdout.write(`${formatTable([heading, ...cells])}\n`)
}
