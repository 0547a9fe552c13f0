import type { ChaosHost } from './chaos-host.ts'
import {
  cutHost,
  damageChunks,
  dropCaches,
  endDaemon,
  fillDisk,
  freezeDaemon,
  loseRegistry,
  replaceDaemon,
  restart,
} from './fault-actions.ts'
import type { FaultName } from './faults.ts'
import {
  compareLists,
  mountSomething,
  mountTwice,
  renameParent,
  resetSomething,
  unmountSomething,
  writeSomething,
  type Random,
} from './mount-actions.ts'
import type { World } from './world.ts'

/** One kind of thing that a run does. */
export interface Action {
  name: string
  /** Its frequency, relative to the others. */
  weight: number
  /** The action is left out if this fault is off. */
  fault?: FaultName
  /** Waits for its turn on its host; others strike at once, in the middle of those. */
  inTurn?: true
  act: (world: World, host: ChaosHost, random: Random, isOn: (fault: FaultName) => boolean) => Promise<void> | void
}

export const actions: readonly Action[] = [
  {
    name: 'mount',
    weight: 20,
    inTurn: true,
    act: async (world, host, random, isOn) =>
      await mountSomething(world, host, random, { withLinks: isOn('symlinks') }),
  },
  { name: 'umount', weight: 8, inTurn: true, act: unmountSomething },
  { name: 'reset', weight: 8, inTurn: true, act: resetSomething },
  { name: 'write', weight: 15, inTurn: true, act: writeSomething },
  { name: 'compare lists', weight: 6, inTurn: true, act: compareLists },
  { name: 'mount twice', weight: 3, fault: 'symlinks', inTurn: true, act: mountTwice },
  { name: 'rename', weight: 4, fault: 'renames', inTurn: true, act: renameParent },
  { name: 'kill', weight: 4, fault: 'kills', act: (world, host) => endDaemon(world, host, 'SIGKILL') },
  { name: 'terminate', weight: 2, fault: 'terminations', act: (world, host) => endDaemon(world, host, 'SIGTERM') },
  { name: 'replace', weight: 2, fault: 'replacements', act: replaceDaemon },
  { name: 'freeze', weight: 3, fault: 'freezes', act: freezeDaemon },
  {
    name: 'restart',
    weight: 1,
    fault: 'restarts',
    inTurn: true,
    act: async (world, host) => await restart(world, host, { orderly: true }),
  },
  {
    name: 'power cut',
    weight: 1,
    fault: 'power-cuts',
    inTurn: true,
    act: async (world, host) => await restart(world, host, { orderly: false }),
  },
  {
    name: 'cut registry',
    weight: 3,
    fault: 'registry-cuts',
    act: async (world, _host, random) => await loseRegistry(world, random, 'cut'),
  },
  {
    name: 'pause registry',
    weight: 2,
    fault: 'registry-pauses',
    act: async (world, _host, random) => await loseRegistry(world, random, 'pause'),
  },
  { name: 'cut host', weight: 3, fault: 'peer-cuts', act: cutHost },
  {
    name: 'flip',
    weight: 6,
    fault: 'flips',
    act: async (world, host, random) => await damageChunks(world, host, random, 'flip'),
  },
  {
    name: 'truncate',
    weight: 6,
    fault: 'truncations',
    act: async (world, host, random) => await damageChunks(world, host, random, 'truncate'),
  },
  {
    name: 'fill disk',
    weight: 3,
    fault: 'full-disk',
    // The first host has a disk of its own.
    act: async (world, _host, random) => await fillDisk(world, world.hosts[0]!, random),
  },
  {
    name: 'drop caches',
    weight: 8,
    fault: 'page-cache-drops',
    act: async (world, _host, random) => await dropCaches(world, random),
  },
]

/** One of the actions, by weight. The choice depends on the random numbers alone, so a seed gives the same sequence. */
export function chooseAction(random: Random): Action {
  let left = random.below(actions.reduce((sum, { weight }) => sum + weight, 0))
  return actions.find(({ weight }) => (left -= weight) < 0)!
}
