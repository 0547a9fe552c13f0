/** A program: shows what honest hosts notice of strangers and bad members. */
import { parseArgs } from 'node:util'
import { debianImages, oddImage } from '../images/images.ts'
import { acts, runBadMembers, type Act, type ActOutcome } from './bad-members.ts'
import type { Latencies } from './read-latency.ts'
import { runStrangers, type StrangersOutcome } from './strangers.ts'

const help = `Attacks p2pfs daemons in network namespaces of this machine, and shows what honest hosts notice.

Usage: npm run hostile -- [OPTION...]

  --only strangers|members  one of the two [both]
  --rounds N                rounds with and without strangers [3]
  --rate N                  connections a second of strangers, to each host [500]
  --half-open N             connections that strangers try to hold open, to each host [5000]
  --identities N            identities of a bad member [50]
  --acts LIST               what he does, with commas [all: ${Object.keys(acts).join(', ')}]
  --list-keys               hosts list the key of the one that has seeded the images
  --json                    print JSON
  --help                    show this help
`

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    rate: { type: 'string', default: '500' },
    'half-open': { type: 'string', default: '5000' },
    identities: { type: 'string', default: '50' },
    acts: { type: 'string' },
    'list-keys': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

const tell = (line: string): void => void process.stderr.write(`${line}\n`)

function chosenActs(): Act[] {
  const all = Object.keys(acts) as Act[]
  if (values.acts === undefined) return all
  return values.acts.split(',').map((name) => {
    const act = all.find((candidate) => candidate === name.trim())
    if (act === undefined) throw new Error(`no such act: ${name}; there are ${all.join(', ')}`)
    return act
  })
}

async function main(): Promise<void> {
  if (values.help) return void process.stdout.write(help)
  const { gzip } = await debianImages()
  const strangers =
    values.only === 'members'
      ? undefined
      : await runStrangers(gzip, {
          rounds: Number(values.rounds),
          connectionsPerSecond: Number(values.rate),
          halfOpen: Number(values['half-open']),
          tell,
        })
  const members =
    values.only === 'strangers'
      ? undefined
      : await runBadMembers(gzip, await oddImage(), {
          acts: chosenActs(),
          identities: Number(values.identities),
          listKeys: values['list-keys'],
          tell,
        })
  if (values.json) return void process.stdout.write(`${JSON.stringify({ strangers, members }, undefined, 2)}\n`)
  if (strangers !== undefined) process.stdout.write(describeStrangers(strangers))
  if (members !== undefined) process.stdout.write(describeMembers(members))
}

function describeStrangers({ without, with: attacked, stranger, warnings }: StrangersOutcome): string {
  const latencies = (name: string, before: Latencies, after: Latencies): string[] =>
    (['p50', 'p99', 'longest'] as const).map(
      (key) =>
        `  ${name}, ${key}`.padEnd(26) +
        `${before[key].toFixed(1)} ms without, ${after[key].toFixed(1)} ms with: ${(after[key] / before[key]).toFixed(2)}x`,
    )
  const memoryMiB = (attacked.peakMemoryBytes - without.peakMemoryBytes) / (1 << 20)
  const lines = [
    `strangers: ${stranger.opened} connections, ${stranger.longestHeardBytes} bytes heard on one at most`,
    ...latencies('cold reads', without.cold, attacked.cold),
    ...latencies('local reads', without.local, attacked.local),
    `  memory`.padEnd(26) + `${memoryMiB.toFixed(0)} MiB more`,
    `  a host joins in`.padEnd(26) + `${without.joinMs} ms without, ${attacked.joinMs} ms with`,
    ...warnings.map((warning) => `  log: ${warning}`),
  ]
  return `${lines.join('\n')}\n`
}

function describeMembers(outcomes: readonly ActOutcome[]): string {
  const base = outcomes.find(({ act }) => act === 'nothing')
  const lines = outcomes.flatMap((outcome) => [
    `${outcome.act}: mount ${Math.round(outcome.mountMs)} ms, longest read ${Math.round(outcome.longestReadMs)} ms, ` +
      `${outcome.errors.length} errors, bytes ${outcome.isRight ? 'right' : 'WRONG'}, memory ` +
      `${Math.round((outcome.peakMemoryBytes - (base?.peakMemoryBytes ?? 0)) / (1 << 20))} MiB more, ` +
      `${outcome.connectionsToCanary} connections to a host of his choice`,
    ...outcome.warnings.map((warning) => `  log: ${warning}`),
  ])
  return `bad members:\n${lines.map((line) => `  ${line}`).join('\n')}\n`
}

await main()
