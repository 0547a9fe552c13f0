import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { TestContext } from 'node:test'
import { cached } from '../../../netlab/images/image-cache.ts'
import type { Place } from './readers.ts'

/** A small Debian as an installer leaves it, with what the package depends on, so that tests need no mirror. */
const recipe = {
  suite: 'bookworm',
  include: 'systemd-sysv,dbus,e2fsprogs,mount,ca-certificates,libstdc++6,init-system-helpers,procps',
  version: 1,
}
const waitMs = 90_000

/**
 * Starts systemd as process 1 of namespaces: its arguments are the tree and a control group, whose subtree is its own.
 * There are no terminals, and no devices but those that p2pfs needs.
 */
const bootScript = `set -e
tree=$1
echo $$ >"$2/cgroup.procs"
exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child=SIGKILL --propagation private sh -ec '
tree=$1
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount -t sysfs sysfs "$tree/sys"
mount -t cgroup2 cgroup2 "$tree/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$tree/run"
mount -t tmpfs -o mode=755 tmpfs "$tree/dev"
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "console 1 3" "kmsg 1 3"; do
  set -- $node
  mknod -m 666 "$tree/dev/$1" c "$2" "$3"
done
mknod -m 600 "$tree/dev/fuse" c 10 229
ln -s /proc/self/fd "$tree/dev/fd"
exec env -i container=p2pfs-lab PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$tree" /lib/systemd/systemd --system --show-status=no
' sh "$tree"`

/** A Debian host with systemd, in namespaces of its own; it has the network of this one. */
export class DebianHost implements Place {
  readonly root: string
  readonly #cgroup: string
  #unshare: ChildProcess | undefined
  #init: string | undefined

  private constructor(root: string, cgroup: string) {
    this.root = root
    this.#cgroup = cgroup
  }

  /** Makes a tree of its own and boots it; both are gone after the test. */
  static async start(context: TestContext): Promise<DebianHost> {
    const tree = await cached('service-host', recipe, {}, async (directory) => {
      const flags = ['--variant=minbase', `--include=${recipe.include}`, '--quiet']
      execFileSync('mmdebstrap', [...flags, recipe.suite, directory, 'http://deb.debian.org/debian'], { stdio: 'pipe' })
    })
    const directory = mkdtempSync(join(tmpdir(), 'p2pfs-test-'))
    const root = join(directory, 'host')
    execFileSync('cp', ['-a', '--reflink=auto', tree, root])
    const [, hierarchy = ''] = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/mounts', 'utf8')) ?? []
    const host = new DebianHost(root, join(hierarchy, basename(directory)))
    context.after(async () => {
      await host.powerOff()
      rmSync(directory, { recursive: true, force: true })
    })
    await host.boot()
    return host
  }

  /** Boots, and waits until all units have started or failed. */
  async boot(): Promise<void> {
    mkdirSync(this.#cgroup)
    const unshare = spawn('sh', ['-c', bootScript, 'sh', this.root, this.#cgroup], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    this.#unshare = unshare
    for (const deadline = performance.now() + waitMs; ;) {
      if (unshare.exitCode !== null || performance.now() > deadline) throw new Error('systemd does not start here')
      const [init = ''] = readFileSync(`/proc/${unshare.pid}/task/${unshare.pid}/children`, 'utf8').trim().split(' ')
      if (init !== '' && readFileSync(`/proc/${init}/comm`, 'utf8').trim() === 'systemd') {
        this.#init = init
        if (/running|degraded/.test(this.try('systemctl is-system-running'))) return
      }
      await new Promise((over) => setTimeout(over, 100))
    }
  }

  /** Ends all that runs there at once, as a power cut. */
  async powerOff(): Promise<void> {
    const unshare = this.#unshare
    if (unshare === undefined) return
    this.#unshare = undefined
    const gone = once(unshare, 'exit')
    if (unshare.exitCode === null) {
      unshare.kill('SIGKILL')
      await gone
    }
    const remove = (directory: string): void => {
      for (const entry of readdirSync(directory, { withFileTypes: true }))
        if (entry.isDirectory()) remove(join(directory, entry.name))
      rmdirSync(directory)
    }
    // Processes of the namespaces are killed with its first one, which may take a moment.
    for (let tries = 100; tries > 0; tries--) {
      try {
        remove(this.#cgroup)
        break
      } catch {
        await new Promise((over) => setTimeout(over, 100))
      }
    }
  }

  get enter(): readonly string[] {
    const environment = [
      'env',
      '-i',
      'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
      'HOME=/root',
      'DEBIAN_FRONTEND=noninteractive',
    ]
    return ['nsenter', '-t', this.#init ?? '', '-m', '-p', '-u', '-i', '-C', ...environment, 'chroot', this.root]
  }

  /** Runs a shell command there. @returns what it prints @throws if it fails */
  run(command: string): string {
    const [program = '', ...argv] = this.enter
    return execFileSync(program, [...argv, 'sh', '-c', command], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  /** The same, whether it fails or not. */
  try(command: string): string {
    return this.run(`${command} 2>&1 || true`)
  }
}
