import { parseArgs } from 'node:util'
import { coldImages, type ColdImageName } from '../images/cold-images.ts'
import { BurstLab, burstModes, type BurstMode, type BurstStart } from './burst-start.ts'
import { spread, type Spread } from './measurement.ts'
import { formatCopies } from './request-copies.ts'
import { formatTable } from './table.ts'

const help = `Usage: npm run burst -- [options]

Empty hosts start the program of an image, all at once. The table compares a burst with one host alone.

  --hosts LIST      numbers of hosts [1,2,6]
  --modes LIST      ${burstModes.join(', ')} [all]
  --image NAME      py or node [py]
  --rate N          rate of the registry's link (Mbit/s) [100]
  --host-rate N     rate of each host's link (Mbit/s) [1000]
  --runs N          bursts of each kind [3]
  --requests        print what was fetched more than once; the proxy that logs it takes some time
  --json            print the figures as JSON
`

const { values: args } = parseArgs({
  options: {
    hosts: { type: 'string', default: '1,2,6' },
    modes: { type: 'string', default: burstModes.join(',') },
    image: { type: 'string', default: 'py' },
    rate: { type: 'string', default: '100' },
    'host-rate': { type: 'string', default: '1000' },
    runs: { type: 'string', default: '3' },
    requests: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (args.help) {
  process.stdout.write(help)
  process.exit(0)
}
const note = (line: string): void => void process.stderr.write(`burst: ${line}\n`)

interface BurstCase {
  mode: BurstMode
  hosts: number
  starts: BurstStart[]
}

note('preparing the images')
const image = (await coldImages())[args.image as ColdImageName]
if (image === undefined) throw new Error(`there is no image ${args.image}`)
const cases: BurstCase[] = args.modes
  .split(',')
  .flatMap((mode) =>
    args.hosts.split(',').map((hosts) => ({ mode: mode as BurstMode, hosts: Number(hosts), starts: [] })),
  )
const rates = { registryBitsPerSecond: Number(args.rate) * 1e6, hostBitsPerSecond: Number(args['host-rate']) * 1e6 }
{
  await using lab = await BurstLab.create({ logRequests: args.requests })
  for (let run = 0; run < Number(args.runs); run++) {
    for (const { mode, hosts, starts } of run % 2 === 0 ? cases : cases.toReversed()) {
      const { requests, ...start } = await lab.start(image, mode, hosts, rates)
      starts.push(start)
      if (requests !== undefined) process.stderr.write(`${formatCopies(requests)}\n`)
      note(
        `${mode}, ${hosts} hosts: slowest ${seconds(start.readyMs.at(-1)!)} s, registry ${megabytes(start.registryBytes)} MB`,
      )
    }
  }
}

const figures = cases.map(({ mode, hosts, starts }) => ({
  mode,
  hosts,
  firstMs: spread(starts.map(({ readyMs }) => readyMs[0]!)),
  slowestMs: spread(starts.map(({ readyMs }) => readyMs.at(-1)!)),
  registryBytes: spread(starts.map(({ registryBytes }) => registryBytes)),
  betweenBytes: spread(starts.map(({ betweenBytes }) => betweenBytes)),
  daemonCpuSeconds: spread(starts.map(({ daemonCpuSeconds }) => daemonCpuSeconds)),
}))
if (args.json) process.stdout.write(`${JSON.stringify({ ...args, figures }, undefined, 2)}\n`)
else {
  const heading = [
    'mode',
    'hosts',
    'slowest, s',
    'against one',
    'first, s',
    'registry, MB',
    'against one',
    'between, MB',
    'CPU a host, s',
  ]
  const rows = figures.map((row) => {
    const alone = figures.find(({ mode, hosts }) => mode === row.mode && hosts === 1)
    const against = (pick: (figure: typeof row) => Spread): string =>
      alone === undefined || pick(alone).median === 0 ? '' : `${(pick(row).median / pick(alone).median).toFixed(2)}x`
    return [
      row.mode,
      String(row.hosts),
      range(row.slowestMs, seconds),
      against(({ slowestMs }) => slowestMs),
      range(row.firstMs, seconds),
      range(row.registryBytes, megabytes),
      against(({ registryBytes }) => registryBytes),
      range(row.betweenBytes, megabytes),
      range(row.daemonCpuSeconds, (value) => value.toFixed(1)),
    ]
  })
  process.stdout.write(`${formatTable([heading, ...rows])}\n`)
}

function range({ median, min, max }: Spread, text: (value: number) => string): string {
  return `${text(median)} (${text(min)}-${text(max)})`
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1)
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1)
}
