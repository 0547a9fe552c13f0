import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const top = fileURLToPath(new URL('../..', import.meta.url))

/** One import of a source file, types included; paths are relative to the top of the repository. */
interface Import {
  file: string
  imported: string
}

/** Relative imports of all source files below `folder`. */
function importsBelow(folder: string): Import[] {
  return readdirSync(join(top, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => {
      const file = join(folder, name)
      const source = readFileSync(join(top, file), 'utf8')
      return [...source.matchAll(/(?:from|import\(|import|new URL\()\s*'(\.[^']+\.(?:ts|json))'/g)].map(([, path]) => ({
        file,
        imported: relative(top, normalize(join(top, dirname(file), path!))),
      }))
    })
}

interface Floor {
  mayName: readonly string[]
  because: string
  /** Files that it may name outside of its house, besides those that all rooms of the house may. */
  outside?: readonly string[]
}

/**
 * The rooms of `node/`, lowest first. A room may name itself, `protocol/`, and the rooms that stand in its list.
 * Every room stands above all that it names, so no two rooms can name each other.
 */
const floors: Record<string, Floor> = {
  base: { mayName: [], because: 'general helpers: they know nothing of images' },
  model: { mayName: ['base'], because: 'words that several rooms share: they do nothing by themselves' },
  registry: { mayName: ['base', 'model'], because: 'a client of the OCI distribution protocol, of use without p2pfs' },
  rootfs: { mayName: ['base', 'model'], because: 'makes chunks and filesystems of layers, wherever those come from' },
  store: { mayName: ['base', 'model'], because: 'keeps what others give it' },
  peers: {
    mayName: ['base', 'model'],
    because: 'asks and serves peers; what it serves is handed to it when it starts',
  },
  publish: {
    mayName: ['base', 'model', 'registry', 'rootfs', 'store'],
    because: 'publications are artifacts of a registry; what they deliver is verified and kept',
  },
  layers: {
    mayName: ['base', 'model', 'registry', 'rootfs', 'store', 'peers', 'publish'],
    because: 'reads layers, whole or at any place, with what the region and publications tell of them',
  },
  fetch: {
    mayName: ['base', 'model', 'store', 'peers', 'layers'],
    because: 'decides which of these sources delivers a chunk',
  },
  neighbours: {
    mayName: ['base', 'model', 'peers', 'fetch'],
    because: 'asks other regions, in the place of the registry; its members are peers that this host is a guest of',
  },
  config: {
    mayName: ['base', 'model', 'registry', 'rootfs', 'neighbours'],
    because: 'declares the options; the rooms below say what each may be',
  },
  images: {
    mayName: ['base', 'model', 'registry', 'rootfs', 'store', 'peers', 'publish', 'layers', 'fetch'],
    because: 'decides which of these says what an image is, and imports it',
  },
  boot: {
    mayName: ['base', 'model', 'store', 'peers', 'fetch'],
    because: 'records and replays what a mount reads first',
  },
  mount: {
    mayName: ['base', 'model', 'rootfs', 'store', 'fetch', 'boot'],
    because: 'turns reads of mounts into fetches, starts their boots, and lays out what the kernel reads by itself',
  },
  seeds: {
    mayName: ['base', 'model', 'store', 'peers', 'fetch', 'images', 'boot'],
    because: 'places images on hosts ahead of need: jobs of the region, and what this host does for them',
  },
  hot: {
    mayName: ['base', 'registry', 'peers', 'images', 'seeds'],
    because: 'counts mounts in the region, and gives orders for what is mounted often',
  },
  disk: {
    mayName: ['base', 'model', 'store', 'peers', 'images', 'mount', 'seeds'],
    because: 'decides what the disk keeps, by what is used, wanted, and held by others',
  },
  service: {
    mayName: ['base', 'mount'],
    because: 'keeps what outlives daemons and supervisors, and hands it on; loads nothing of the daemon',
  },
  control: { mayName: ['base', 'model'], because: 'the API and its transport: what it calls is handed to it' },
  operations: {
    mayName: [
      'base',
      'model',
      'registry',
      'rootfs',
      'store',
      'peers',
      'publish',
      'layers',
      'fetch',
      'images',
      'boot',
      'neighbours',
      'mount',
      'seeds',
      'hot',
      'disk',
      'control',
    ],
    because: 'what users ask for, in terms of all the rooms below',
  },
  metrics: {
    mayName: [
      'base',
      'model',
      'registry',
      'store',
      'peers',
      'publish',
      'layers',
      'images',
      'mount',
      'seeds',
      'control',
      'operations',
    ],
    because: 'shows what the parts below know of themselves: to Prometheus, to probes, to a browser',
  },
  wiring: {
    mayName: [
      'base',
      'model',
      'registry',
      'rootfs',
      'store',
      'peers',
      'publish',
      'layers',
      'fetch',
      'neighbours',
      'config',
      'images',
      'boot',
      'mount',
      'seeds',
      'hot',
      'disk',
      'control',
      'operations',
      'metrics',
    ],
    because: 'constructs the parts of all rooms, in groups; daemon.ts says in which order',
  },
}

/** The rooms of `netlab/`, lowest first. */
const netlabFloors: Record<string, Floor> = {
  hosts: { mayName: [], because: 'the machine: processes, namespaces, daemons, virtual machines' },
  registry: { mayName: ['hosts'], because: 'registries that run on these hosts' },
  images: { mayName: ['hosts'], because: 'images are built by commands, with no host of a lab' },
  scenarios: { mayName: ['hosts', 'registry', 'images'], because: 'what hosts do with an image, told step by step' },
  bench: { mayName: ['hosts', 'registry', 'images', 'scenarios'], because: 'measures all that' },
  chaos: { mayName: ['hosts', 'registry', 'images'], because: 'random actions and faults, and readers that compare' },
  disk: { mayName: ['hosts'], because: 'limits on the disk, and full disks, with real daemons' },
  hostile: {
    mayName: ['hosts', 'registry', 'images'],
    because: 'strangers and bad members, made of the same code as honest ones, and what honest hosts notice of them',
    outside: ['node/peers/', 'node/base/log.ts'],
  },
  simulator: {
    mayName: ['bench'],
    because: 'runs the parts of the node over a modelled network, in one process and in virtual time',
    outside: ['base', 'boot', 'fetch', 'layers', 'model', 'peers', 'registry', 'store'].map((room) => `node/${room}/`),
  },
}

/** Files in the root of `node/`, and the rooms that each may name; undefined: all of them. */
const roots: Record<string, readonly string[] | undefined> = {
  'daemon.ts': undefined,
  'main.ts': undefined,
  'run-daemon.ts': undefined,
  'state-directory.ts': ['base', 'config'],
  // Without the daemon's modules, which take longer to load than it.
  'supervise.ts': ['base', 'config', 'control', 'service'],
  'supervisor.ts': ['base', 'control', 'service'],
}

test('protocol/ knows nobody, so that it can be read and reused alone', () => {
  for (const { file, imported } of importsBelow('protocol')) {
    assert.ok(imported.startsWith('protocol/'), `${file} imports ${imported}`)
  }
})

test('node/ has no room without a floor, and nothing in its root but what puts the rooms together', () => {
  const entries = readdirSync(join(top, 'node'), { withFileTypes: true })
  const names = (directories: boolean): string[] =>
    entries
      .filter((entry) => entry.isDirectory() === directories)
      .map(({ name }) => name)
      .toSorted()
  assert.deepEqual(names(true), Object.keys(floors).toSorted())
  assert.deepEqual(names(false), Object.keys(roots).toSorted())
})

/** The folders that are made of rooms, and the files outside that every room in them may name. */
const houses = [
  { folder: 'node', rooms: floors, outside: ['protocol/'] },
  // netlab/ starts daemons as processes: it knows the command line and the control API, not the node (the simulator does).
  { folder: 'netlab', rooms: netlabFloors, outside: ['protocol/', 'test/support/', 'node/control/api.ts'] },
]

for (const { folder, rooms, outside } of houses) {
  test(`in ${folder}/ every floor stands above those that it names`, () => {
    const order = Object.keys(rooms)
    for (const [room, { mayName }] of Object.entries(rooms)) {
      for (const below of mayName) assert.ok(order.indexOf(below) < order.indexOf(room), `${room} names ${below}`)
    }
  })

  for (const [room, { mayName, because, outside: more = [] }] of Object.entries(rooms)) {
    test(`${folder}/${room}/ names ${mayName.join(', ') || 'no other room'}: ${because}`, () => {
      const allowed = [...outside, ...more, ...[room, ...mayName].map((name) => `${folder}/${name}/`)]
      for (const { file, imported } of importsBelow(`${folder}/${room}`)) {
        assert.ok(
          allowed.some((prefix) => imported.startsWith(prefix)),
          `${file} imports ${imported}`,
        )
      }
    })
  }
}

test('every TypeScript file of netlab/ is in a room', () => {
  const folders = new Set(importsBelow('netlab').map(({ file }) => dirname(file)))
  assert.deepEqual(
    [...folders].toSorted(),
    Object.keys(netlabFloors)
      .map((room) => `netlab/${room}`)
      .toSorted(),
  )
})

test('the root of node/ names rooms, and no room names the root', () => {
  for (const { file, imported } of importsBelow('node')) {
    if (dirname(file) !== 'node' || !imported.startsWith('node/')) continue
    const [, room = ''] = imported.split('/')
    const mayName = roots[file.slice('node/'.length)]
    const isRoot = dirname(imported) === 'node'
    assert.ok(isRoot || mayName === undefined || mayName.includes(room), `${file} imports ${imported}`)
  }
})

test('no file imports itself through others, types included', () => {
  const imports = new Map<string, string[]>()
  for (const folder of ['protocol', 'node', 'cli', 'netlab', 'test']) {
    for (const { file, imported } of importsBelow(folder)) {
      const known = imports.get(file)
      if (known === undefined) imports.set(file, [imported])
      else known.push(imported)
    }
  }
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file)
    assert.equal(at, -1, `a cycle: ${[...path.slice(at), file].join(' -> ')}`)
    if (done.has(file)) return
    for (const imported of imports.get(file) ?? []) visit(imported, [...path, file])
    done.add(file)
  }
  for (const file of imports.keys()) visit(file, [])
})

test('cli/ speaks to the control API only; p2pfs daemon alone loads the node itself', () => {
  for (const { file, imported } of importsBelow('cli')) {
    const allowed = ['cli/', 'node/control/', 'node/model/', 'node/base/', 'protocol/errors.ts', 'package.json']
    // Makes a file that daemons read, and needs none.
    if (file === 'cli/keygen.ts') allowed.push('protocol/region-key.ts')
    // Reads the credentials of its user, with his rights; loaded where that is asked for.
    if (file === 'cli/auth.ts') allowed.push('node/registry/credentials.ts', 'node/registry/reference.ts')
    if (file === 'cli/daemon.ts') allowed.push('node/supervise.ts', 'node/config/')
    assert.ok(
      allowed.some((prefix) => imported.startsWith(prefix)),
      `${file} imports ${imported}`,
    )
  }
})

test('the supervisor has none of the modules of the daemon, nor of libp2p: it starts at once, and stays small', () => {
  const loaded = new Set<string>()
  const packages = new Set<string>()
  const load = (file: string): void => {
    if (loaded.has(file)) return
    loaded.add(file)
    const source = readFileSync(join(top, file), 'utf8')
    for (const [, types, name = ''] of source.matchAll(/^(?:import|export) (type )?(?:[^';]*? from )?'([^']+)'/gm)) {
      if (types !== undefined || name.startsWith('node:') || name.endsWith('.json')) continue
      if (name.startsWith('.')) load(relative(top, normalize(join(top, dirname(file), name))))
      else packages.add(name)
    }
  }
  for (const file of ['cli/main.ts', 'cli/daemon.ts', 'node/config/load-config.ts', 'node/supervise.ts']) load(file)
  assert.ok(loaded.has('node/supervisor.ts'), [...loaded].join(' '))
  assert.ok(!loaded.has('node/run-daemon.ts') && !loaded.has('node/daemon.ts'), [...loaded].join(' '))
  assert.deepEqual([...packages].toSorted(), ['cborg', 'smol-toml'])
})

test('unit tests need neither root nor the lab', () => {
  for (const { file, imported } of importsBelow('test/unit')) {
    // The simulator is plain code: it starts no daemon.
    const isLab = imported.startsWith('netlab/') && !imported.startsWith('netlab/simulator/')
    assert.ok(!isLab && !imported.startsWith('test/lab/'), `${file} imports ${imported}`)
  }
})
