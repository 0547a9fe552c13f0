import { parseArgs } from 'node:util'
import { faultNames, offByDefault, type FaultName } from './faults.ts'
import { runChaos } from './run.ts'

const help = `Usage: npm run chaos -- [options]

Runs random actions and faults against the daemons of two hosts, while readers compare every byte with the truth.
Prints each action, and each finding as a line of JSON. Ends with 1 if there are findings.

  --seconds N  how long [600]
  --seed N     chooses the actions [random]
  --without A,B  faults that are left out: ${faultNames.slice(0, 8).join(', ')},
               ${faultNames.slice(8).join(', ')}
  --with A     faults that are otherwise left out: ${offByDefault.join(', ')}
  --only A,B   no faults but these
  --small      leaves out the large image
  --logs DIR   keeps the logs of the daemons
`

const { values: args } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    without: { type: 'string', default: '' },
    with: { type: 'string', default: '' },
    only: { type: 'string' },
    logs: { type: 'string' },
    small: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (args.help) {
  process.stdout.write(help)
  process.exit(0)
}
const print = (line: string): void => void process.stdout.write(`${line}\n`)
const off = new Set<FaultName>(args.only === undefined ? offByDefault : faultNames)
for (const fault of faultsIn(args.without)) off.add(fault)
for (const fault of [...faultsIn(args.with), ...faultsIn(args.only ?? '')]) off.delete(fault)
const seed = Number(args.seed)
print(`seed ${seed}; without ${[...off].join(', ') || 'nothing'}`)
const { findings, actions, reads, readBytes, failedReads } = await runChaos({
  seed,
  seconds: Number(args.seconds),
  off: [...off],
  isSmall: args.small,
  ...(args.logs !== undefined && { logDirectory: args.logs }),
  tell: print,
})
print(`seed ${seed}: ${actions} actions, ${reads} reads of ${(readBytes / 1e6).toFixed(0)} MB, ${failedReads} failed`)
for (const { kind, host, detail, atSeconds, at, actions: last } of findings) {
  print(`\n${kind} on ${host} at ${atSeconds} s (${at}): ${detail}`)
  for (const line of last.slice(-10)) print(`    ${line}`)
}
print(findings.length === 0 ? 'Nothing was found.' : `${findings.length} findings.`)
process.exitCode = findings.length === 0 ? 0 : 1

function faultsIn(text: string): FaultName[] {
  return text
    .split(',')
    .filter(Boolean)
    .map((word) => {
      const fault = faultNames.find((name) => name === word)
      if (fault !== undefined) return fault
      process.stderr.write(`chaos: no such fault: ${word}\n\n${help}`)
      process.exit(2)
    })
}
