import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { filesystems, whyNot } from './filesystems.ts'
import { losePower } from './power-loss.ts'
import { killStores } from './process-death.ts'

const help = `Usage: npm run powerloss -- [options]

Runs a store on a disk of its own (a filesystem on a loop device on a FUSE file) and cuts the power at random instants: what was
written since the disk's last sync is there afterwards, in part, or not. Ends with 1 if a promise was broken.

  --filesystem NAME
               ext4, xfs or btrfs, if its mkfs is installed [ext4]
  --rounds N   how often the power is cut [100]
  --kills N    how often a store on a disk that is well is killed [0]
  --seed N     chooses the work and the instants [random]
`

/** Findings of one round that are printed. */
const maxPrinted = 10

const { values: args } = parseArgs({
  options: {
    filesystem: { type: 'string', default: 'ext4' },
    rounds: { type: 'string', default: '100' },
    kills: { type: 'string', default: '0' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    help: { type: 'boolean', default: false },
  },
})
if (args.help) {
  process.stdout.write(help)
  process.exit(0)
}
const filesystem = filesystems.find(({ name }) => name === args.filesystem)
const reason = filesystem === undefined ? `no filesystem ${args.filesystem}` : whyNot(filesystem)
if (filesystem === undefined || reason !== undefined) {
  process.stderr.write(`${reason}\n`)
  process.exit(2)
}
const print = (line: string): void => void process.stdout.write(`${line}\n`)
const directory = mkdtempSync(join('/dev/shm', 'p2pfs-powerloss-'))
const killed = { stores: 0, kept: 0, findings: 0 }
const total = { rounds: 0, files: 0, damaged: 0, doubtful: 0, promised: 0, findings: 0 }
try {
  print(`seed ${args.seed}`)
  for await (const { seed, mountedWith, cut, findings, ...round } of losePower(directory, {
    filesystem,
    rounds: Number(args.rounds),
    seed: Number(args.seed),
  })) {
    total.rounds++
    total.findings += findings.length
    for (const figure of ['files', 'damaged', 'doubtful', 'promised'] as const) total[figure] += round[figure]
    print(
      `${total.rounds}: ${cut.writes} writes not synced, ${(cut.lostBytes / 1e6).toFixed(1)} MB lost, ` +
        `${(cut.keptBytes / 1e6).toFixed(1)} MB kept; ${round.files} files, ${round.doubtful} in doubt, ` +
        `${round.damaged} damaged; ${round.promised} promised (seed ${seed}, ${mountedWith})`,
    )
    for (const finding of findings.slice(0, maxPrinted)) print(`    ${finding}`)
  }
  for await (const { seed, kept, findings } of killStores(mkdtempSync(join(directory, 'killed-')), {
    kills: Number(args.kills),
    seed: Number(args.seed),
  })) {
    killed.stores++
    killed.kept += kept
    killed.findings += findings.length
    for (const finding of findings.slice(0, maxPrinted)) print(`kill ${killed.stores} (seed ${seed}): ${finding}`)
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}
print(
  `${total.rounds} power losses: ${total.damaged} damaged files, ${total.doubtful} chunks in doubt, ` +
    `${total.promised} promises looked at, ${total.findings} broken`,
)
if (killed.stores > 0)
  print(`${killed.stores} stores killed: ${killed.kept} kept chunks looked at, ${killed.findings} findings`)
process.exitCode = total.findings + killed.findings === 0 ? 0 : 1
