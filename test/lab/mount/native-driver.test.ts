import assert from 'node:assert/strict'
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { detachForeignMounts } from './foreign-mounts.ts'
import type { MountResult } from '../../../node/control/api.ts'

const project = fileURLToPath(new URL('../../..', import.meta.url))
/** The user and group `nobody`. */
const user = 65_534
const timeoutMs = 60_000

interface Result {
  status: number | null
  stdout: string
  stderr: string
}

/**
 * A user who is not root, on a host where that user may use FUSE: a mount namespace with its own /dev/fuse and
 * /etc/fuse.conf. The checkout is mounted at a place that the user can get to.
 */
class UserHost {
  readonly directory: string
  readonly #holder: ChildProcess

  private constructor(directory: string, holder: ChildProcess) {
    this.directory = directory
    this.#holder = holder
  }

  static async start(t: TestContext, { mayUseFuse = true, allowOther = false } = {}): Promise<UserHost> {
    const directory = mkdtempSync(join(tmpdir(), 'p2pfs-test-'))
    for (const name of ['p2pfs', 'source', 'target']) mkdirSync(join(directory, name))
    writeFileSync(join(directory, 'source', 'file'), 'content')
    writeFileSync(join(directory, 'fuse.conf'), allowOther ? 'user_allow_other\n' : '')
    for (const path of ['', 'target']) chownSync(join(directory, path), user, user)
    const script = `set -e
      cd '${directory}'
      mknod -m ${mayUseFuse ? 666 : 600} fuse c 10 229
      mount --bind fuse /dev/fuse
      mount --bind fuse.conf /etc/fuse.conf
      mount --bind '${project}' p2pfs
      ${detachForeignMounts(directory)}
      echo ready
      exec sleep infinity`
    const holder = spawn('unshare', ['-m', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    t.after(async () => {
      const gone = once(holder, 'exit')
      holder.kill('SIGKILL')
      await gone
      rmSync(directory, { recursive: true })
    })
    await once(holder.stdout, 'data')
    return new UserHost(directory, holder)
  }

  /** Starts a program in the namespace, as the user or as root. */
  spawn(argv: readonly string[], { asRoot = false, path = process.env['PATH'] ?? '' } = {}): ChildProcess {
    const become = asRoot ? [] : ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups']
    return spawn(
      'nsenter',
      ['-t', String(this.#holder.pid), '-m', ...become, 'env', '-C', this.directory, `PATH=${path}`, ...argv],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HOME: this.directory, XDG_CACHE_HOME: '' } },
    )
  }

  async run(argv: readonly string[], options: { asRoot?: boolean; path?: string } = {}): Promise<Result> {
    const child = this.spawn(argv, options)
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      child[name]!.setEncoding('utf8').on('data', (text: string) => (output[name] += text))
    const [status] = (await once(child, 'close')) as [number | null]
    clearTimeout(timer)
    return { status, ...output }
  }

  async cli(...argv: string[]): Promise<Result> {
    return await this.run(['p2pfs/cli/p2pfs', ...argv, '--control', `${this.directory}/control.sock`])
  }

  readonly daemonCommand = [
    'p2pfs/cli/p2pfs',
    'daemon',
    '--fuse-driver=native',
    '--state-dir=state',
    '--control=control.sock',
    '--listen=/ip4/127.0.0.1/tcp/0',
  ]

  /** Starts a daemon and waits until it answers; it ends with the test. */
  async startDaemon(t: TestContext): Promise<ChildProcess> {
    const daemon = this.spawn(this.daemonCommand)
    t.after(() => daemon.kill('SIGKILL'))
    let log = ''
    daemon.stderr!.setEncoding('utf8').on('data', (text: string) => (log += text))
    for (const deadlineMs = performance.now() + timeoutMs; (await this.cli('status')).status !== 0;) {
      if (daemon.exitCode !== null) throw new Error(`daemon ended: ${log}`)
      if (performance.now() > deadlineMs) throw new Error(`daemon is not ready in time: ${log}`)
    }
    return daemon
  }

  async mounts(): Promise<string[]> {
    const { stdout } = await this.run(['cat', '/proc/self/mounts'])
    return stdout.split('\n').filter((line) => line.includes(`${this.directory}/state`))
  }
}

const end = async (daemon: ChildProcess, signal: NodeJS.Signals): Promise<number | null> => {
  const gone = once(daemon, 'exit')
  daemon.kill(signal)
  return ((await gone) as [number | null])[0]
}

test('a daemon of an ordinary user mounts drives, and leaves nothing when it is killed or stopped', async (t) => {
  const host = await UserHost.start(t)
  const target = join(host.directory, 'target')
  const link = join(target, 'rootfs.img')
  let daemon = await host.startDaemon(t)
  assert.equal((await host.cli('import', 'source', 'app')).status, 0)
  const exported = await host.cli('export', 'local:app', 'rootfs.img')
  assert.equal(exported.status, 0, exported.stderr)
  const rootfs = readFileSync(join(host.directory, 'rootfs.img'))
  const expected = createHash('sha256').update(rootfs).digest('hex')
  const read = async (asRoot = false): Promise<Result> => await host.run(['sha256sum', link], { asRoot })
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    const answer = await host.cli('mount', 'local:app', 'target')
    assert.equal(answer.status, 0, answer.stderr)
    assert.equal((JSON.parse(answer.stdout) as MountResult).rootfs, link)
    assert.match((await read()).stdout, new RegExp(expected))
    assert.match((await read(true)).stderr, /Permission denied/, 'without user_allow_other')
    // Nobody could take the mount over: it stays, and so does the socket.
    daemon.kill('SIGHUP')
    assert.match((await read()).stdout, new RegExp(expected), 'after SIGHUP')
    assert.equal((await host.cli('status')).status, 0)
    const status = await end(daemon, signal)
    if (signal === 'SIGTERM') assert.equal(status, 0)
    else daemon = await host.startDaemon(t)
    assert.equal((await host.run(['test', '-L', link])).status, 1, `after ${signal} the link is gone`)
  }
  assert.deepEqual(await host.mounts(), [])
  assert.equal(existsSync(join(host.directory, 'control.sock')), false)
})

test('with user_allow_other root reads the drives of an ordinary user too, and no other user does', async (t) => {
  const host = await UserHost.start(t, { allowOther: true })
  const daemon = await host.startDaemon(t)
  assert.equal((await host.cli('import', 'source', 'app')).status, 0)
  const tree = await host.cli('mount', 'local:app', 'target', '--as', 'tree')
  assert.match(tree.stderr, /--fuse-driver native, which mounts drives only/)
  const owned = await host.cli('mount', 'local:app', 'target', '--owner', '1000:1000')
  assert.match(owned.stderr, /--owner: .* --fuse-driver native, whose drives only its own user reads/)
  assert.equal((await host.cli('mount', 'local:app', 'target')).status, 0)
  assert.equal((await host.run(['sha256sum', 'target/rootfs.img'], { asRoot: true })).status, 0)
  // A process that is in the directory already needs no right to the state directory.
  const readAs = async (uid: number): Promise<Result> =>
    await host.run(
      [
        'sh',
        '-c',
        `cd "$(dirname "$(readlink target/rootfs.img)")" &&
          exec setpriv --reuid=${uid} --regid=${uid} --clear-groups sh -c 'exec head -c 1 rootfs.img'`,
      ],
      { asRoot: true },
    )
  for (const uid of [0, user]) assert.equal((await readAs(uid)).status, 0)
  assert.match((await readAs(1000)).stderr, /Permission denied/)
  assert.equal((await host.cli('umount', 'target')).status, 0)
  assert.equal(await end(daemon, 'SIGTERM'), 0)
  assert.deepEqual(await host.mounts(), [])
})

test('a user who cannot mount is told what to do', async (t) => {
  const host = await UserHost.start(t, { mayUseFuse: false })
  const closed = await host.run(host.daemonCommand)
  assert.equal(closed.status, 78, closed.stderr)
  assert.match(closed.stderr, /user nobody cannot open \/dev\/fuse; as root: modprobe fuse, then chmod 666 \/dev\/fuse/)
  const tools = join(host.directory, 'tools')
  mkdirSync(tools)
  for (const name of ['readlink', 'dirname'])
    symlinkSync(execFileSync('which', [name], { encoding: 'utf8' }).trim(), join(tools, name))
  const open = await UserHost.start(t)
  const withoutFuse = await open.run(open.daemonCommand, { path: tools })
  assert.equal(withoutFuse.status, 78, withoutFuse.stderr)
  assert.match(withoutFuse.stderr, /fusermount is not installed; on Debian: apt-get install libfuse2 fuse/)
})
