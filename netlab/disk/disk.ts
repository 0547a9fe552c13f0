import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { createRandom } from '../../test/support/random.ts'
import { runFill } from './fill-run.ts'
import { runZipf, type ZipfFigures } from './zipf-run.ts'

const mebibyte = 2 ** 20

const help = `Usage: npm run disk -- zipf|fill [options]

zipf: mounts of many images, Zipf-distributed, by a daemon with a limit on its store and by one without, in turns; every byte is
compared. It fails where the store is ever above the limit, a read fails, or a byte is wrong.
fill: the disk of a daemon is filled to the last block and freed again, at random, under load. It fails where a read or a
mount of a known image fails, a byte is wrong, or the daemon does not recover by itself.

  --limit MIB       zipf: the limit of the store [2048]
  --images N        zipf: how many [200]
  --size MIB        zipf: the layer that each image has for itself; 8 more layers, twice as large, are shared [20]
  --mounts N        zipf: how many [400]
  --skew N          zipf: exponent of Zipf's law [1]
  --times N         fill: how often [100]
  --seed N          decides what is mounted and read [1]
`

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    limit: { type: 'string', default: '2048' },
    images: { type: 'string', default: '200' },
    size: { type: 'string', default: '20' },
    mounts: { type: 'string', default: '400' },
    skew: { type: 'string', default: '1' },
    times: { type: 'string', default: '100' },
    seed: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  },
})
const [what] = positionals
if (args.help || (what !== 'zipf' && what !== 'fill')) {
  process.stdout.write(help)
  process.exit(args.help ? 0 : 2)
}

const onProgress = (text: string): void => void process.stderr.write(`disk: ${text}\n`)
const directory = await mkdtemp(join(tmpdir(), 'p2pfs-disk-'))
try {
  const random = createRandom(Number(args.seed))
  process.exitCode = (await (what === 'zipf' ? zipf() : fill())) ? 0 : 1

  async function zipf(): Promise<boolean> {
    const limitBytes = Number(args.limit) * mebibyte
    const sizeBytes = Number(args.size) * mebibyte
    const figures = await runZipf(directory, random, {
      images: Number(args.images),
      bases: 8,
      baseBytes: 2 * sizeBytes,
      ownBytes: sizeBytes,
      limitBytes,
      mounts: Number(args.mounts),
      skew: Number(args.skew),
      onProgress,
    })
    for (const [name, of] of Object.entries(figures)) process.stdout.write(`${name}: ${describe(of)}\n`)
    const { limited, unlimited } = figures
    for (const failure of [...limited.failures, ...unlimited.failures].slice(0, 10)) onProgress(failure)
    return (
      limited.mostBytes <= limitBytes &&
      limited.mostStatedBytes <= limitBytes &&
      [limited, unlimited].every(({ failures, wrong }) => failures.length === 0 && wrong === 0)
    )
  }

  async function fill(): Promise<boolean> {
    const { failures, ...figures } = await runFill(directory, random, { times: Number(args.times), onProgress })
    process.stdout.write(`${JSON.stringify({ ...figures, failures: failures.length })}\n`)
    for (const failure of failures.slice(0, 10)) onProgress(failure)
    return failures.length === 0 && figures.wrong === 0 && figures.isSameDaemon
  }
} finally {
  await rm(directory, { recursive: true, force: true })
}

function describe({ readMs, pinnedMs, mountMs, failures, wrong, ...bytes }: ZipfFigures): string {
  const quantiles = (ms: readonly number[]): string =>
    `${ms.length}: ${[0.5, 0.99, 1].map((share) => (ms[Math.ceil(ms.length * share) - 1] ?? 0).toFixed(1)).join(' / ')}`
  const mib = (count: number): string => (count / mebibyte).toFixed(0)
  return (
    `ms at p50 / p99 / most: reads ${quantiles(readMs)}, of the pinned image ${quantiles(pinnedMs)}, mounts ${quantiles(mountMs)}; ` +
    `store at most ${mib(bytes.mostBytes)} MiB (stated ${mib(bytes.mostStatedBytes)}), evicted ${mib(bytes.evictedBytes)} MiB; ` +
    `${failures.length} failures, ${wrong} wrong`
  )
}
