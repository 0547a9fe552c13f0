import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { killDaemons } from './daemon-death.ts'
import { loseDaemonPower } from './daemon-power-loss.ts'
import { filesystems, whyNot } from './filesystems.ts'
import { losePower } from './power-loss.ts'
import { killStores } from './process-death.ts'

const help = `Usage: npm run powerloss -- [options]

Runs a store on a disk of its own (a filesystem on a loop device on a FUSE file) and cuts the power at random instants: what was
written since the disk's last sync is there afterwards, in part, or not. Ends with 1 if a promise was broken.

  --daemon     a whole p2pfs daemon in the place of the store: it imports, seeds, mounts and reads meanwhile, and every
               byte that it serves afterwards is compared
  --filesystem NAME
               ext4, xfs or btrfs, if its mkfs is installed [ext4]
  --rounds N   how often the power is cut [100]
  --kills N    how often a store, or a daemon, on a disk that is well is killed [0]
  --seed N     chooses the work and the instants [random]
`

/** Findings of one round that are printed. */
const maxPrinted = 10

const { values: args } = parseArgs({
  options: {
    daemon: { type: 'boolean', default: false },
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
const printFindings = (findings: readonly string[]): void =>
  findings.slice(0, maxPrinted).forEach((finding) => print(`    ${finding}`))
const directory = mkdtempSync(join('/dev/shm', 'p2pfs-powerloss-'))
const losses = { filesystem, rounds: Number(args.rounds), seed: Number(args.seed) }
const deaths = { kills: Number(args.kills), seed: Number(args.seed) }
let broken = 0
try {
  print(`seed ${args.seed}`)
  if (losses.rounds > 0) await (args.daemon ? cutDaemons() : cutStores())
  const killed = mkdtempSync(join(directory, 'killed-'))
  if (deaths.kills > 0) await (args.daemon ? killAllDaemons(killed) : killAllStores(killed))
} finally {
  try {
    rmSync(directory, { recursive: true, force: true })
  } catch (error) {
    print(`${directory} cannot be removed: ${(error as Error).message}`)
  }
}
process.exitCode = broken === 0 ? 0 : 1

async function cutStores(): Promise<void> {
  const total = { rounds: 0, damaged: 0, doubtful: 0, promised: 0, findings: 0 }
  for await (const { seed, mountedWith, cut, findings, ...round } of losePower(directory, losses)) {
    total.rounds++
    total.findings += findings.length
    for (const figure of ['damaged', 'doubtful', 'promised'] as const) total[figure] += round[figure]
    print(
      `${total.rounds}: ${describeCut(cut)}; ${round.files} files, ${round.doubtful} in doubt, ` +
        `${round.damaged} damaged; ${round.promised} promised (seed ${seed}, ${mountedWith})`,
    )
    printFindings(findings)
  }
  broken += total.findings
  print(
    `${total.rounds} power losses: ${total.damaged} damaged files, ${total.doubtful} chunks in doubt, ` +
      `${total.promised} promises looked at, ${total.findings} broken`,
  )
}

async function cutDaemons(): Promise<void> {
  const total = { rounds: 0, starting: 0, damaged: 0, doubtful: 0, imported: 0, images: 0, findings: 0 }
  for await (const { seed, mountedWith, cut, wasReady, findings, ...round } of loseDaemonPower(directory, losses)) {
    total.rounds++
    if (!wasReady) total.starting++
    total.findings += findings.length
    for (const figure of ['damaged', 'doubtful', 'imported', 'images'] as const) total[figure] += round[figure]
    print(
      `${total.rounds}: ${describeCut(cut)}${wasReady ? '' : ', while it started'}; ${round.files} files, ` +
        `${round.doubtful} in doubt, ${round.damaged} damaged; ${round.images} images read, ${round.imported} imported ` +
        `(seed ${seed}, ${mountedWith})`,
    )
    printFindings(findings)
  }
  broken += total.findings
  print(
    `${total.rounds} power losses of a daemon, ${total.starting} while it started: ${total.damaged} damaged files, ` +
      `${total.doubtful} chunks in doubt, ${total.images} images read, ${total.imported} reports of imports looked at, ` +
      `${total.findings} findings`,
  )
}

async function killAllStores(killed: string): Promise<void> {
  const total = { stores: 0, kept: 0, findings: 0 }
  for await (const { seed, kept, findings } of killStores(killed, deaths)) {
    total.stores++
    total.kept += kept
    total.findings += findings.length
    if (findings.length > 0) print(`kill ${total.stores} (seed ${seed}):`)
    printFindings(findings)
  }
  broken += total.findings
  print(`${total.stores} stores killed: ${total.kept} kept chunks looked at, ${total.findings} findings`)
}

async function killAllDaemons(killed: string): Promise<void> {
  const total = { kills: 0, images: 0, findings: 0 }
  for await (const { seed, kills, images, findings } of killDaemons(killed, deaths)) {
    total.kills += kills
    total.images += images
    total.findings += findings.length
    print(`${total.kills} kills; ${images} images read (seed ${seed})`)
    printFindings(findings)
  }
  broken += total.findings
  print(`${total.kills} kills of daemons: ${total.images} images read afterwards, ${total.findings} findings`)
}

function describeCut({
  writes,
  keptBytes,
  lostBytes,
}: {
  writes: number
  keptBytes: number
  lostBytes: number
}): string {
  return `${writes} writes not synced, ${(lostBytes / 1e6).toFixed(1)} MB lost, ${(keptBytes / 1e6).toFixed(1)} MB kept`
}
