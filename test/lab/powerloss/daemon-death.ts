import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createRandom } from '../../support/random.ts'
import { compareTrees, registryReference, registryTrees, startRegistry } from './daemon-images.ts'
import { DaemonUnderTest } from './daemon-under-test.ts'
import { DaemonWork } from './daemon-work.ts'

export interface DaemonDeaths {
  seed: number
  /** Daemons that were killed in this round. */
  kills: number
  /** Images that are known at the end; all were read. */
  images: number
  findings: string[]
}

/** Daemons that are killed under one supervisor: the first three are replaced within a second. */
const killsOfLife = 4
/** A daemon is killed at most so long after its start, or after it has begun to serve (ms). */
const maxStartMs = 2_000
const maxWorkMs = 3_000
/** Lives on one state directory, before it is full of what was imported. */
const livesOfState = 10

/**
 * Kills daemons at work, again and again: each one but the last of a life alone, so that its mounts go on, and the last
 * with its supervisor.
 * @param directory an empty one
 */
export async function* killDaemons(
  directory: string,
  { kills, seed }: { kills: number; seed: number },
): AsyncGenerator<DaemonDeaths> {
  const random = createRandom(seed)
  await using registry = await startRegistry(directory)
  const own = join(directory, 'host')
  mkdirSync(own)
  const argv = ['--listen', '/ip4/127.0.0.1/tcp/0', '--insecure-registry', registry.authority]
  let tree = 0
  let [state, imported] = ['', new Set<number>()]
  for (let [killed, life] = [0, 0]; killed < kills; life++) {
    if (life % livesOfState === 0) {
      if (state !== '') rmSync(state, { recursive: true })
      ;[state, imported] = [mkdtempSync(join(directory, 'state-')), new Set()]
    }
    const lifeSeed = random.below(2 ** 31)
    const daemon = new DaemonUnderTest({ directory: own, stateDirectory: state, bootId: 'boot', argv })
    const work = new DaemonWork({
      daemon,
      random: createRandom(lifeSeed),
      directory,
      registryReference: (image) => registryReference(registry, image),
      imported,
      nextTree: () => tree++,
      mayEndRequests: true,
    })
    const ofLife = Math.min(kills - killed, killsOfLife)
    const deaths = await live(daemon, work, createRandom(lifeSeed + 1), ofLife)
    killed += ofLife
    const check = new DaemonUnderTest({ directory: own, stateDirectory: state, bootId: 'boot', argv })
    const images = await readAll(check, imported, deaths)
    yield { seed: lifeSeed, kills: ofLife, images, findings: deaths }
  }
}

/** @returns what is wrong */
async function live(
  daemon: DaemonUnderTest,
  work: DaemonWork,
  random: ReturnType<typeof createRandom>,
  kills: number,
): Promise<string[]> {
  const started = daemon.ready().then(() => work.start())
  started.catch(() => undefined)
  // One that is killed before it has ever served ends its supervisor.
  await started
  for (let kill = 1; kill <= kills; kill++) {
    if (random.below(2) === 0) await sleep(random.below(maxStartMs))
    else {
      await daemon.serves()
      await sleep(random.below(maxWorkMs))
    }
    // There is none for a moment, between two.
    if (kill < kills) while (!daemon.killDaemon()) await sleep(1)
  }
  work.end()
  if (daemon.hasEnded) work.findings.push(`the supervisor ended by itself: ${daemon.log}`)
  await daemon.killAll()
  await started.catch(() => undefined)
  await work.ended()
  return work.findings
}

async function readAll(daemon: DaemonUnderTest, imported: Set<number>, findings: string[]): Promise<number> {
  try {
    const { images } = await daemon.ready()
    const known = new Set(images.map(({ reference }) => reference))
    for (const tree of imported)
      if (!known.has(`local:tree-${tree}`) && imported.delete(tree)) findings.push(`local:tree-${tree} is lost`)
    for (const { reference, format } of images) {
      // A name that a seed has given; the tag is read, too.
      if (reference.includes('@')) continue
      const [, tree] = /^local:tree-(\d+)$/.exec(reference) ?? []
      const [, image] = /:(\d+)$/.exec(reference) ?? []
      const trees = tree === undefined ? registryTrees(Number(image)) : [Number(tree)]
      const wrong = await daemon
        .whileMounted(reference, format, async (directory) => await compareTrees(directory, trees))
        .catch((error: unknown) => [`${(error as Error).stack}`])
      findings.push(...wrong.map((finding) => `${reference} (${format}): ${finding}`))
    }
    if (daemon.log.includes('host stopped before all chunks were synced')) findings.push('chunks are in doubt')
    return images.length
  } finally {
    await daemon.killAll()
  }
}
