export const simulationOptions = {
  hosts: { type: 'string', default: '10,100' },
  containers: { type: 'string', default: '10' },
  scenario: { type: 'string', default: 'burst' },
  seed: { type: 'string', default: '1' },
  machines: { type: 'string', default: 'rack' },
  rate: { type: 'string' },
  'host-rate': { type: 'string' },
  handshake: { type: 'string' },
  'full-mesh': { type: 'string' },
  'image-scale': { type: 'string', default: '1' },
  settled: { type: 'boolean', default: false },
  settle: { type: 'string', default: '10' },
  last: { type: 'string', default: '0' },
  rest: { type: 'string', default: '4' },
  timeout: { type: 'string', default: '300' },
  'max-read': { type: 'string', default: '3' },
  'max-copies': { type: 'string', default: '1.05' },
  trace: { type: 'string', multiple: true, default: [] as string[] },
  plots: { type: 'string' },
  compare: { type: 'string' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const

export interface SimulationArguments {
  hosts: string
  containers: string
  scenario: string
  seed: string
  machines: string
  rate?: string | undefined
  'host-rate'?: string | undefined
  handshake?: string | undefined
  'full-mesh'?: string | undefined
  'image-scale': string
  settled: boolean
  settle: string
  last: string
  rest: string
  timeout: string
  'max-read': string
  'max-copies': string
  trace: string[]
  plots?: string | undefined
  compare?: string | undefined
  json: boolean
}

export const simulationHelp = `Usage: npm run simulate -- [options]

The daemon's own code on many hosts in virtual time: containers of one image start on all of them at once. Network,
registry, disks and programs are modelled (docs/simulator.md). The same seed makes the same run. Exit code 1: something
that must always hold did not, and what, when and where is printed.

  --hosts LIST       numbers of hosts, a run each [10,100]
  --containers N     containers on each host [10]
  --scenario NAME    burst, churn, partition, liars, slow, stopped [burst]
  --seed N           of everything random [1]
  --machines NAME    rack: links of 10 Gbit/s, a core for each daemon; lab: as in netlab [rack]
  --rate N           rate of the registry's link (Mbit/s) [1000]
  --host-rate N      rate of each host's link (Mbit/s) [10000]
  --handshake N      CPU time of a handshake on each side (ms) [2]
  --full-mesh N      hosts of a region that is connected each to each; fewer make more cohorts of a large one [64]
  --image-scale N    an image of so much of the size, with as much of its reads: large regions take less time [1]
  --settled          hosts know all members from the begin, as after long gossip: large regions take less time and memory
  --settle N         virtual time in which the hosts find each other (s) [10]
  --last N           containers that are ready go on reading other chunks until so long after the burst began (s) [0]
  --rest N           virtual time in which messages are counted after the burst, from its second second on (s) [4]
  --timeout N        virtual time in which all must be ready (s) [300]
  --max-read N       the longest that a read may wait (s) [3]
  --max-copies N     registry bytes, of those of one host, where nothing fails [1.05]
  --trace HOST       print what happens on the host with this number; may be repeated
  --plots DIR        write ready times and registry bytes over hosts as SVG
  --compare FILE     what npm run burst -- --json printed, mode profile: simulate it, and print both in one table
  --json             print the figures as JSON
`
