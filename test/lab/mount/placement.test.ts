import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { run } from '../../../netlab/hosts/process.ts'
import { DriveDirectories } from '../../../node/mount/placement/drive-directories.ts'
import { DiskTemplates } from '../../../node/mount/placement/disk-template.ts'
import { KernelMounter } from '../../../node/mount/placement/kernel-mounter.ts'
import { KernelPlacement } from '../../../node/mount/placement/kernel-placement.ts'
import { LinkPlacement } from '../../../node/mount/placement/link-placement.ts'
import type { MountSpec, Placement } from '../../../node/mount/placement/placement.ts'
import { runTool, type RunTool } from '../../../node/mount/placement/run-tool.ts'
import { Reach } from '../../../node/mount/placement/reach.ts'
import { ScratchDrives } from '../../../node/mount/placement/scratch-drives.ts'
import { silentLog } from '../../../node/base/log.ts'
import { UseCheck } from '../../../node/mount/placement/use-check.ts'
import { Trees } from '../../../node/mount/placement/trees.ts'
import { WritableLayers } from '../../../node/mount/placement/writable-layers.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'

/** A host's directories. A tmpfs with two images stands in for the FUSE filesystem. Disposal leaves nothing. */
class TestHost implements AsyncDisposable {
  readonly directory: string
  #ids = 0

  private constructor(directory: string) {
    this.directory = directory
  }

  /** @param options `shared`: what is mounted there goes to other mount namespaces too, as on a host with systemd */
  static async create({ shared = false } = {}): Promise<TestHost> {
    const host = new TestHost(await mkdtemp(join(tmpdir(), 'p2pfs-test-')))
    if (shared) {
      await run('mount', ['--bind', host.directory, host.directory])
      await run('mount', ['--make-shared', host.directory])
    }
    const [mountPoint, content] = [host.path('mnt'), host.path('content')]
    for (const path of [mountPoint, content]) await mkdir(path)
    await run('mount', ['-t', 'tmpfs', 'p2pfs-test', mountPoint])
    for (const name of ['first', 'second']) {
      await mkdir(join(mountPoint, name))
      await writeFile(join(content, 'name'), name)
      await run('mkfs.erofs', ['--quiet', join(mountPoint, name, 'rootfs.img'), content])
    }
    return host
  }

  path(...names: string[]): string {
    return join(this.directory, ...names)
  }

  async image(rootfs: string): Promise<Buffer> {
    return await readFile(this.path('mnt', rootfs, 'rootfs.img'))
  }

  /** A drive of the first image, on a directory of the user. */
  async drive(name: string, more: Partial<MountSpec> = {}): Promise<MountSpec> {
    const directory = this.path('of-user', name)
    await mkdir(directory, { recursive: true })
    return {
      id: `id${this.#ids++}`,
      directory,
      rootfs: 'first',
      format: 'erofs',
      as: 'drive',
      writable: false,
      ...more,
    }
  }

  async mounts(): Promise<string[]> {
    return (await readFile('/proc/self/mountinfo', 'utf8'))
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((path) => path === this.directory || path.startsWith(`${this.directory}/`))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const path of (await this.mounts()).toReversed()) await run('umount', [path])
    await rm(this.directory, { recursive: true })
  }
}

interface Kind {
  /** Another placement on the same host, as the next daemon makes it. */
  open: (host: TestHost, run?: RunTool) => Placement
  /** Whether what was placed stands for the next daemon. */
  outlivesDaemon: boolean
  /** Makes a directory unfit for a drive. */
  occupy: (spec: MountSpec, placement: Placement) => Promise<void>
}

const { signal } = new AbortController()

const kinds: Record<string, Kind> = {
  kernel: {
    open: (host, tool = runTool) => {
      const mountPoint = host.path('mnt')
      const mounter = new KernelMounter({ run: tool })
      const uses = new UseCheck({ run: tool })
      const templates = new DiskTemplates({ run: tool }, { directory: host.path('templates') })
      const parts = {
        mounter,
        trees: new Trees({ mounter }, { directory: host.path('trees'), mountPoint }),
        writables: new WritableLayers(
          { mounter, templates, uses, log: silentLog },
          { directory: host.path('writable') },
        ),
        scratches: new ScratchDrives({ templates, uses, log: silentLog }, { directory: host.path('scratch') }),
        drives: new DriveDirectories({ mounter, log: silentLog }, { directory: host.path('drives') }),
        reach: new Reach({ run: tool }),
        natives: undefined,
      }
      return new KernelPlacement(parts, {
        mountPoint,
        roots: [mountPoint, ...['trees', 'writable', 'drives'].map((name) => host.path(name))],
      })
    },
    outlivesDaemon: true,
    occupy: async (spec, placement) => void (await placement.place({ ...spec, id: 'other' }, { signal })),
  },
  link: {
    open: (host) => new LinkPlacement({ mountPoint: host.path('mnt') }),
    outlivesDaemon: false,
    occupy: async ({ directory }) => await writeFile(join(directory, 'rootfs.img'), 'of the user'),
  },
}

const isError =
  (code: ErrorCode) =>
  (error: unknown): boolean =>
    isP2pfsError(error, code)

for (const [kind, { open: openKind, outlivesDaemon, occupy }] of Object.entries(kinds)) {
  test(`the ${kind} placement puts drives on directories, and takes them away`, async () => {
    await using host = await TestHost.create()
    const placement = openKind(host)
    const first = await host.drive('a')
    const second = await host.drive('b', { rootfs: 'second' })
    const placed: MountSpec[] = []
    for (const spec of [first, second]) {
      const mount = await placement.place(spec, { signal })
      const { rootfs, scratch } = mount.placed
      placed.push({ ...spec, identity: mount.identity })
      assert.equal(rootfs, join(spec.directory, 'rootfs.img'))
      assert.equal(scratch, undefined)
      assert.ok((await host.image(spec.rootfs)).equals(await readFile(rootfs)))
    }
    for (const spec of placed) {
      await placement.remove(spec)
      assert.deepEqual(await readdir(spec.directory), [])
      assert.equal(await placement.release(spec.rootfs), true)
    }
    await placement.remove(placed[0]!)
  })

  test(`the ${kind} placement refuses a directory that is absent, taken, or given up`, async () => {
    await using host = await TestHost.create()
    const placement = openKind(host)
    const spec = await host.drive('a')
    const absent = { ...spec, directory: host.path('of-user', 'absent') }
    await assert.rejects(placement.place(absent, { signal }), isError('missing'))
    await assert.rejects(placement.place(spec, { signal: AbortSignal.abort() }), { name: 'AbortError' })
    assert.deepEqual(await readdir(spec.directory), [])
    await occupy(spec, placement)
    const before = await readFile(join(spec.directory, 'rootfs.img'))
    await assert.rejects(placement.place(spec, { signal }), isError('conflict'))
    assert.deepEqual(await readFile(join(spec.directory, 'rootfs.img')), before, 'a refusal changes nothing')
  })

  test(`the ${kind} placement resets nothing of a plain drive, and says so`, async () => {
    await using host = await TestHost.create()
    const placement = openKind(host)
    const spec = await host.drive('a')
    const { rootfs } = (await placement.place(spec, { signal })).placed
    await assert.rejects(placement.reset(spec), isError('invalid'))
    assert.ok((await host.image('first')).equals(await readFile(rootfs)))
  })

  test(`the ${kind} placement tells the next daemon what stands, and tidies up nothing of that`, async () => {
    await using host = await TestHost.create()
    const specs = [await host.drive('a'), await host.drive('b', { rootfs: 'second' })]
    const placed: MountSpec[] = []
    for (const spec of specs) {
      const { identity } = await openKind(host).place(spec, { signal })
      placed.push({ ...spec, identity })
    }
    const next = openKind(host)
    const standing = [...(await next.standing(placed)).keys()].toSorted()
    assert.deepEqual(standing, outlivesDaemon ? specs.map(({ id }) => id).toSorted() : [])
    await next.tidy(placed)
    for (const { directory, rootfs } of specs)
      assert.ok((await host.image(rootfs)).equals(await readFile(join(directory, 'rootfs.img'))))
  })
}

test('the link placement refuses what takes mounts', async () => {
  await using host = await TestHost.create()
  const placement = kinds['link']!.open(host)
  for (const more of [{ as: 'tree' }, { scratchBytes: 2 ** 20 }] as const) {
    const spec = await host.drive(`d${Object.keys(more).join('')}`, more)
    await assert.rejects(placement.place(spec, { signal }), isError('unsupported'))
    assert.deepEqual(await readdir(spec.directory), [])
  }
})

test('the kernel placement mounts trees, writable trees and scratch drives, and removes all of them', async () => {
  await using host = await TestHost.create()
  const placement = kinds['kernel']!.open(host)
  const before = await host.mounts()
  const specs = [
    await host.drive('tree', { as: 'tree' }),
    await host.drive('writable', { as: 'tree', writable: true }),
    await host.drive('limited', { as: 'tree', writable: true, limitBytes: 2 ** 24 }),
    await host.drive('drive', { scratchBytes: 2 ** 24 }),
  ]
  const [tree, writable, limited, drive] = specs as [MountSpec, MountSpec, MountSpec, MountSpec]
  const placed = new Map<MountSpec, string | undefined>()
  const identities = new Map<MountSpec, string>()
  for (const spec of specs) {
    const mount = await placement.place(spec, { signal })
    placed.set(spec, mount.placed.scratch)
    identities.set(spec, mount.identity)
  }
  const known = (spec: MountSpec): MountSpec => ({ ...spec, identity: identities.get(spec)! })
  assert.equal(await readFile(join(tree.directory, 'name'), 'utf8'), 'first')
  await assert.rejects(writeFile(join(tree.directory, 'new'), ''), { code: 'EROFS' })
  for (const spec of [writable, limited]) {
    await writeFile(join(spec.directory, 'name'), 'changed')
    identities.set(spec, (await placement.reset(known(spec))).identity)
    assert.equal(await readFile(join(spec.directory, 'name'), 'utf8'), 'first')
  }
  const scratch = placed.get(drive)!
  await writeFile(scratch, 'spoilt')
  assert.deepEqual((await placement.reset(known(drive))).placed.scratch, scratch)
  await run('e2fsck', ['-fn', scratch])
  const standing = [...(await placement.standing(specs.map(known))).keys()].toSorted()
  assert.deepEqual(standing, specs.map(({ id }) => id).toSorted())
  for (const spec of specs) await placement.remove(known(spec))
  assert.equal(await placement.release('first'), true)
  assert.equal(existsSync(scratch), false)
  await leavesNothing(host, before)
})

test('the kernel placement tidies up what belongs to no mount', async () => {
  await using host = await TestHost.create()
  const placement = kinds['kernel']!.open(host)
  const before = await host.mounts()
  const specs = [
    await host.drive('writable', { as: 'tree', writable: true, limitBytes: 2 ** 24 }),
    await host.drive('drive', { scratchBytes: 2 ** 24 }),
  ]
  for (const spec of specs) await placement.place(spec, { signal })
  // The user's directories are unmounted behind the back of the daemon, which has no records of them.
  for (const { directory } of specs) await run('umount', ['--recursive', directory])
  await kinds['kernel']!.open(host).tidy([])
  await leavesNothing(host, before)
})

test('the kernel placement removes the disk of a layer that a killed daemon has not finished', async () => {
  await using host = await TestHost.create()
  const before = await host.mounts()
  const spec = await host.drive('limited', { as: 'tree', writable: true, limitBytes: 2 ** 24 })
  await kinds['kernel']!.open(host).place(spec, { signal })
  const layer = join(host.path('writable'), spec.id)
  for (const mountPoint of [spec.directory, join(layer, 'merged')]) await run('umount', [mountPoint])
  await rm(join(layer, 'disk/upper'), { recursive: true })
  await rename(layer, `${layer}.gone-1`)
  await kinds['kernel']!.open(host).tidy([])
  assert.deepEqual(await host.mounts(), before)
})

/** Runs tools until so many have run. From then on the daemon is dead: nothing it asks for happens. */
const dyingAfter = (count: number): { run: RunTool; isDead: () => boolean } => {
  let ran = 0
  return {
    run: async (...call) => (++ran > count ? { ok: false, message: 'dead' } : await runTool(...call)),
    isDead: () => ran > count,
  }
}

/** Both files of a drive are there, and right. */
async function isWholeDrive(host: TestHost, { directory, rootfs }: MountSpec): Promise<void> {
  assert.deepEqual(await readdir(directory), ['rootfs.img', 'scratch.img'])
  assert.ok((await host.image(rootfs)).equals(await readFile(join(directory, 'rootfs.img'))))
  await run('e2fsck', ['-fn', join(directory, 'scratch.img')])
}

for (const step of ['place', 'reset', 'remove'] as const) {
  test(`a daemon that dies at any tool of the ${step} of a drive with a scratch leaves it whole, or nothing of it`, async () => {
    await using host = await TestHost.create()
    const { open: daemon } = kinds['kernel']!
    const before = await host.mounts()
    const outcomes: boolean[] = []
    for (let tools = 0, isDone = false; !isDone; tools++) {
      let spec = await host.drive(`drive-${tools}`, { scratchBytes: 2 ** 24 })
      if (step !== 'place') spec = { ...spec, identity: (await daemon(host).place(spec, { signal })).identity }
      const { run: tool, isDead } = dyingAfter(tools)
      const dying = daemon(host, tool)
      await dying[step](spec, { signal }).catch(() => undefined)
      isDone = !isDead()
      const next = daemon(host)
      const stands = (await next.standing([spec])).get(spec.id)
      await next.tidy(stands === undefined ? [] : [spec])
      outcomes.push(stands !== undefined)
      if (stands !== undefined) {
        spec = { ...spec, identity: stands }
        if (step !== 'reset') await isWholeDrive(host, spec)
        // A reset that was begun can be done again, and then all is right.
        await next.reset(spec)
        await isWholeDrive(host, spec)
        await next.remove(spec)
      }
      assert.deepEqual(await readdir(spec.directory), [])
      await leavesNothing(host, before, ['scratch', 'drives'])
      assert.ok(tools < 40)
    }
    if (step === 'place') assert.deepEqual([outcomes[0], outcomes.at(-1)], [false, true])
    if (step === 'reset') assert.ok(outcomes.every(Boolean))
    if (step === 'remove') assert.deepEqual([outcomes[0], outcomes.at(-1)], [true, false])
  })
}

test('a drive with a scratch that is in use stays whole when it is to end', async () => {
  await using host = await TestHost.create()
  const placement = kinds['kernel']!.open(host)
  const spec = await host.drive('drive', { scratchBytes: 2 ** 24 })
  const known = { ...spec, identity: (await placement.place(spec, { signal })).identity }
  for (const name of ['rootfs.img', 'scratch.img']) {
    const used = await open(join(spec.directory, name), name === 'scratch.img' ? 'r+' : 'r')
    await assert.rejects(placement.remove(known), isError('conflict'))
    await used.close()
    await isWholeDrive(host, spec)
    assert.equal((await placement.standing([known])).size, 1)
  }
  await placement.remove(known)
  assert.deepEqual(await readdir(spec.directory), [])
})

test('where mounts are shared with other namespaces, a drive with a scratch stands and ends in all of them', async () => {
  await using host = await TestHost.create({ shared: true })
  const placement = kinds['kernel']!.open(host)
  const before = await host.mounts()
  const other = spawn('unshare', ['--mount', '--propagation', 'slave', 'sh'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const list = async (directory: string): Promise<string> => {
    other.stdin.write(`echo $(ls ${directory}; stat -c %s ${directory}/* 2>&1)\n`)
    const [text] = (await once(other.stdout, 'data')) as [Buffer]
    return String(text).trim()
  }
  assert.match(await list('/'), /usr/)
  const spec = await host.drive('drive', { scratchBytes: 2 ** 24 })
  const { identity } = await placement.place(spec, { signal })
  const size = (await host.image('first')).length
  assert.match(await list(spec.directory), new RegExp(`^rootfs.img scratch.img ${size} [1-9]`))
  await isWholeDrive(host, spec)
  await placement.remove({ ...spec, identity })
  assert.deepEqual(await readdir(spec.directory), [])
  assert.match(await list(spec.directory), /No such file/)
  await leavesNothing(host, before, ['scratch', 'drives'])
  other.stdin.end()
  await once(other, 'exit')
})

test('a drive of an earlier version, whose scratch is below the state directory alone, stands until it is ended', async () => {
  await using host = await TestHost.create()
  const placement = kinds['kernel']!.open(host)
  const before = await host.mounts()
  const spec = await host.drive('drive')
  const { identity } = await placement.place(spec, { signal })
  const drive = { ...spec, identity, scratchBytes: 2 ** 24 }
  const scratch = host.path('scratch', spec.id, 'scratch.img')
  await mkdir(host.path('scratch', spec.id), { recursive: true })
  await writeFile(scratch, 'spoilt')
  for (const recorded of [drive, { ...spec, scratchBytes: 2 ** 24 }])
    assert.deepEqual([...(await placement.standing([recorded])).values()], [identity])
  await placement.tidy([drive])
  assert.deepEqual((await placement.reset(drive)).placed, { rootfs: join(drive.directory, 'rootfs.img'), scratch })
  await run('e2fsck', ['-fn', scratch])
  await placement.remove(drive)
  assert.deepEqual(await readdir(spec.directory), [])
  await leavesNothing(host, before, ['scratch'])
})

async function leavesNothing(
  host: TestHost,
  mountsBefore: readonly string[],
  names = ['trees', 'scratch', 'drives', 'writable'],
): Promise<void> {
  assert.deepEqual(await host.mounts(), mountsBefore)
  for (const name of names) {
    // Discarded layers are deleted in the background.
    const left = (await readdir(host.path(name)).catch(() => [])).filter((entry) => !entry.includes('.gone-'))
    assert.deepEqual(left, [], name)
  }
}
