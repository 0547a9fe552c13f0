// Starts daemons on states of many images and of large ones, and prints what they take. argv: the names of the states;
// all by default.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { call } from '../../node/control/client.ts'
import type { Status } from '../../node/control/api.ts'
import { cpuSecondsOf } from '../../netlab/bench/cpu-time.ts'
import { formatTable } from '../../netlab/bench/table.ts'
import { milliseconds } from '../../netlab/bench/timing.ts'
import { imageName, writeHostState, type HostState } from './host-states.ts'

const program = fileURLToPath(new URL('../../cli/p2pfs', import.meta.url))
const kibibyte = 1024
/** The time in which a daemon ends its own work after a start (ms). */
const settleMs = 3_000
const maxMounts = 100

const oneImage = { images: 1, sharedLayers: 1, layersPerImage: 1, ownChunks: 0, metadataChunks: 64, isHeld: true }
const states: Record<string, HostState> = {
  nothing: { ...oneImage, images: 0, chunksPerLayer: 0, chunkBytes: 256 * kibibyte },
  '1,000 images of 5 of 100 layers of 300 MB': {
    images: 1_000,
    sharedLayers: 100,
    chunksPerLayer: 1_200,
    layersPerImage: 5,
    ownChunks: 20,
    metadataChunks: 10,
    chunkBytes: 256 * kibibyte,
    isHeld: true,
  },
  '60 GB, chunks of 256 KiB': { ...oneImage, chunksPerLayer: 240_000, chunkBytes: 256 * kibibyte },
  '60 GB, none here': { ...oneImage, chunksPerLayer: 240_000, chunkBytes: 256 * kibibyte, isHeld: false },
  '60 GB in packs of 64 KiB, none here': {
    ...oneImage,
    chunksPerLayer: 960_000,
    chunkBytes: 64 * kibibyte,
    isHeld: false,
  },
  '127 layers of 1,000 chunks': {
    ...oneImage,
    sharedLayers: 127,
    layersPerImage: 127,
    chunksPerLayer: 1_000,
    chunkBytes: 64 * kibibyte,
  },
}

/** A daemon on a state of its own. */
class Host {
  readonly directory: string
  readonly #process: ChildProcess
  log = ''
  #pid: number | undefined

  constructor(directory: string, options: readonly string[]) {
    this.directory = directory
    const paths = ['--state-dir', join(directory, 'state'), '--control', this.socket, '--name', 'host']
    this.#process = spawn(program, ['daemon', ...paths, '--listen', '/ip4/127.0.0.1/tcp/0', ...options], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#process.stderr!.setEncoding('utf8').on('data', (text: string) => (this.log += text))
  }

  get socket(): string {
    return join(this.directory, 'control.sock')
  }

  async ready(): Promise<void> {
    while (!this.log.includes('daemon ready')) {
      if (this.#process.exitCode !== null) throw new Error(this.log)
      await sleep(5)
    }
    this.#pid = (await this.status()).daemonPid
  }

  async status(): Promise<Status> {
    return await call('status', {}, { socket: this.socket })
  }

  get cpuSeconds(): number {
    return cpuSecondsOf(this.#pid)
  }

  /** MiB, now and at most (proc(5)). */
  get memory(): { now: number; peak: number } {
    const status = readFileSync(`/proc/${this.#pid}/status`, 'utf8')
    const of = (name: string): number =>
      Math.round(Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024)
    return { now: of('VmRSS'), peak: of('VmHWM') }
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null) return
    this.#process.kill('SIGTERM')
    await once(this.#process, 'exit')
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

/** Mounts drives of the images in turn. @returns how long each mount took (ms) */
async function mountAll(host: Host, images: number, count: number): Promise<number[]> {
  const took: number[] = []
  for (let i = 0; i < count; i++) {
    const directory = join(host.directory, `mount-${i}`)
    mkdirSync(directory)
    const request = { image: imageName(i % images), directory, pull: 'missing' } as const
    took.push(await milliseconds(async () => await call('mount', request, { socket: host.socket })))
  }
  for (let i = 0; i < count; i++)
    await call('umount', { directory: join(host.directory, `mount-${i}`) }, { socket: host.socket })
  return took
}

async function measure(name: string, state: HostState): Promise<string[]> {
  const directory = mkdtempSync(join('/var/tmp', 'p2pfs-size-'))
  try {
    await writeHostState(join(directory, 'state'), state)
    // A start that finds everything in the page cache, as the one of an upgrade does.
    const first = new Host(directory, [])
    await first.ready()
    await first.stop()
    const host = new Host(directory, [])
    const startMs = await milliseconds(async () => await host.ready())
    const startCpu = host.cpuSeconds
    await sleep(settleMs)
    const { now, peak } = host.memory
    const cpu = host.cpuSeconds
    const took = state.images === 0 ? [] : await mountAll(host, state.images, state.images === 1 ? 10 : maxMounts)
    const mountCpu = host.cpuSeconds - cpu
    const statusMs = await milliseconds(async () => await host.status())
    const mounted = host.memory
    await host.stop()
    return [
      name,
      startMs.toFixed(0),
      startCpu.toFixed(2),
      cpu.toFixed(2),
      `${now}`,
      `${peak}`,
      took.length === 0
        ? ''
        : `${median(took).toFixed(0)} (${Math.min(...took).toFixed(0)}-${Math.max(...took).toFixed(0)})`,
      took.length === 0 ? '' : ((mountCpu / took.length) * 1000).toFixed(0),
      `${mounted.now}`,
      `${mounted.peak}`,
      statusMs.toFixed(0),
    ]
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const wanted = process.argv.slice(2)
const head = [
  'state',
  'start, ms',
  'CPU s',
  `CPU s, ${settleMs / 1000} s later`,
  'MiB then',
  'at most',
  'mount, ms',
  'CPU ms each',
  'MiB after the mounts',
  'at most',
  'status, ms',
]
const rows = [head]
for (const [name, state] of Object.entries(states)) {
  if (wanted.length > 0 && !wanted.some((part) => name.includes(part))) continue
  rows.push(await measure(name, state))
  process.stderr.write(`${rows.at(-1)!.join(' | ')}\n`)
}
process.stdout.write(`${formatTable(rows)}\n`)
