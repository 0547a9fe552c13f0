import { parseArgs } from 'node:util'
import { formatTable } from './table.ts'
import { debianImages } from '../images/images.ts'
import { TroubledRegion, troubleNames, type TroubleName, type TroubleOutcome } from '../scenarios/region-troubles.ts'

/** No read may take longer (ms). */
const longestReadMs = 3_000

const help = `Usage: npm run troubles -- [options]

Empty hosts read an image at random while something goes wrong in their region. It fails where a read fails or takes
longer than ${longestReadMs / 1000} s.

  --troubles LIST   ${troubleNames.join(', ')} [all]
  --hosts N         hosts, four at least [6]
  --seconds N       how long they read in each trouble [30]
  --rate N          rate of the registry's link (Mbit/s) [100]
  --seed N          decides what is read, in which order [1]
  --json            print the figures as JSON
`

const { values: args } = parseArgs({
  options: {
    troubles: { type: 'string', default: troubleNames.join(',') },
    hosts: { type: 'string', default: '6' },
    seconds: { type: 'string', default: '30' },
    rate: { type: 'string', default: '100' },
    seed: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (args.help) {
  process.stdout.write(help)
  process.exit(0)
}
const names = args.troubles.split(',')
const unknown = names.find((name) => !troubleNames.some((known) => known === name))
if (unknown !== undefined || !(Number(args.hosts) >= 4)) {
  process.stderr.write(`troubles: ${unknown === undefined ? 'four hosts at least' : `no trouble ${unknown}`}\n${help}`)
  process.exit(2)
}

const outcomes: TroubleOutcome[] = []
{
  await using region = await TroubledRegion.create((await debianImages()).gzip, {
    hosts: Number(args.hosts),
    seconds: Number(args.seconds),
    seed: Number(args.seed),
    registryBitsPerSecond: Number(args.rate) * 1e6,
  })
  for (const name of names as TroubleName[]) {
    process.stderr.write(`troubles: ${name}\n`)
    outcomes.push(await region.run(name))
  }
}
if (args.json) process.stdout.write(`${JSON.stringify(outcomes)}\n`)
else {
  const rows = outcomes.map(({ trouble, readMs, failures, registryBytes }) => [
    trouble,
    String(readMs.length),
    ...[0.5, 0.99, 1].map((share) => (readMs[Math.ceil(readMs.length * share) - 1] ?? 0).toFixed(0)),
    String(failures.length),
    (registryBytes / 1e6).toFixed(1),
  ])
  const heading = ['trouble', 'reads', 'median, ms', 'p99, ms', 'longest, ms', 'failed', 'registry, MB']
  process.stdout.write(`${formatTable([heading, ...rows])}\n`)
}
for (const { trouble, failures } of outcomes)
  for (const failure of failures.slice(0, 5)) process.stderr.write(`troubles: ${trouble}: ${failure}\n`)
if (outcomes.some(({ readMs, failures }) => failures.length > 0 || (readMs.at(-1) ?? 0) > longestReadMs))
  process.exitCode = 1
