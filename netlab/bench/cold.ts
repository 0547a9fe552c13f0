import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { coldImages, type ColdImageName } from '../images/cold-images.ts'
import { coldModes, ColdLab, type ColdMode } from './cold-start.ts'
import { coldFigures, formatColdFigures, type ColdCase } from './cold-table.ts'
import { formatTimeline } from './cold-timeline.ts'
import { createRandom } from '../../test/support/random.ts'

const help = `Usage: npm run cold -- [options]

An empty host without peers runs a program of an image, over slow links to the registry, with p2pfs and a plain pull.

  --runs N     starts of each kind [3]
  --only LIST  images (py, node), rates in Mbit/s (25, 100, any number, unlimited) and ways
               (${coldModes.join(', ')}), separated by commas
  --seed N     the seed for the order of the starts
  --timeline   print each request of each start on stderr; the proxy that logs them takes some time
  --json       print the figures as JSON
`
const defaultRates = ['25', '100', 'unlimited'] as const
const defaultModes: readonly ColdMode[] = ['plain', 'index', 'profile', 'peer']

const { values: args } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    timeline: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (args.help) {
  process.stdout.write(help)
  process.exit(0)
}
const note = (line: string): void => void process.stderr.write(`cold: ${line}\n`)

note('preparing the images')
const images = await coldImages()
const words = args.only.split(',').filter(Boolean)
const names = chosen(Object.keys(images), (word): word is ColdImageName => word in images)
const modes = chosen<ColdMode>(defaultModes, (word): word is ColdMode =>
  (coldModes as readonly string[]).includes(word),
)
const rates = chosen<string>(defaultRates, (word): word is string => /^(\d+|unlimited)$/.test(word))

const cases: ColdCase[] = (names as ColdImageName[]).flatMap((image) =>
  rates.flatMap((rate) =>
    modes.map((mode) => {
      const { compressedBytes } = images[image]
      return { image, compressedBytes, rateMegabits: rate === 'unlimited' ? undefined : Number(rate), mode, starts: [] }
    }),
  ),
)
note(`order by seed ${args.seed}`)
{
  await using lab = await ColdLab.create({ logRequests: args.timeline })
  for (const coldCase of shuffled(Array.from({ length: Number(args.runs) }, () => cases).flat(), Number(args.seed))) {
    const { image, rateMegabits, mode, starts } = coldCase
    const { timeline, ...start } = await lab.start(
      images[image as ColdImageName],
      mode,
      rateMegabits === undefined ? undefined : rateMegabits * 1e6,
    )
    starts.push(start)
    if (timeline !== undefined) process.stderr.write(`${formatTimeline(timeline, rateMegabits)}\n`)
    const cost = `${(start.readyMs / 1000).toFixed(2)} s, ${(start.readyBytes / 1e6).toFixed(1)} MB`
    note(`${image}, ${rateMegabits ?? 'unlimited'} Mbit/s, ${mode}: ${cost}`)
  }
}
const figures = coldFigures(cases)
if (args.json) {
  const machine = { cores: availableParallelism(), cpu: cpus()[0]?.model, node: process.version }
  process.stdout.write(`${JSON.stringify({ machine, seed: Number(args.seed), figures }, undefined, 2)}\n`)
} else {
  process.stdout.write(`${formatColdFigures(figures)}\n`)
}

/** The words of `--only` that are of this kind; all words of the kind if it names none. */
function chosen<T extends string>(all: readonly T[], isOfKind: (word: string) => word is T): readonly T[] {
  const named = words.filter(isOfKind)
  return named.length === 0 ? all : named
}

/** The shuffle of Fisher and Yates. */
function shuffled<T>(items: readonly T[], seed: number): T[] {
  const result = [...items]
  const { below } = createRandom(seed)
  for (let i = result.length - 1; i > 0; i--) {
    const j = below(i + 1)
    ;[result[i], result[j]] = [result[j]!, result[i]!]
  }
  return result
}
