import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { debianImages } from '../../../netlab/images/images.ts'
import { writeBusyboxDrive } from '../../../netlab/images/guest-image.ts'
import { DaemonProcess, type CliResult } from '../daemon-process.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
/** The user that VMMs run as. */
const user = 12_345
/** A limit for a VM without KVM on a busy machine; it takes ten seconds on an idle one. */
const limitMs = 300_000

/** A host with p2pfs on the PATH, beside programs that stand in for VMMs, and a disk image whose guest says it is there. */
class LauncherHost {
  readonly daemon: DaemonProcess
  readonly kernel: string
  readonly #programs: string

  private constructor(daemon: DaemonProcess, kernel: string, programs: string) {
    this.daemon = daemon
    this.kernel = kernel
    this.#programs = programs
  }

  static async create(t: TestContext): Promise<LauncherHost> {
    const daemon = await DaemonProcess.start(t)
    chmodSync(daemon.directory, 0o755)
    const [drive, kernel] = [join(daemon.directory, 'guest.img'), join(daemon.directory, 'kernel')]
    copyFileSync(await writeBusyboxDrive(drive, daemon.directory), kernel)
    chmodSync(kernel, 0o644)
    await daemon.json('import', '--raw', drive, 'guest')
    const host = new LauncherHost(daemon, kernel, daemon.target('bin'))
    host.program('p2pfs', `exec '${join(root, 'cli/p2pfs')}' "$@"`)
    return host
  }

  program(name: string, script: string): void {
    writeFileSync(join(this.#programs, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  }

  async launch(script: string, argv: readonly string[], settings: Record<string, string> = {}): Promise<CliResult> {
    const env = {
      ...process.env,
      PATH: `${this.#programs}:${process.env['PATH']}`,
      P2PFS_CONTROL: this.daemon.control,
      VM_USER: `${user}:${user}`,
      VM_SCRATCH: '16MiB',
      ...settings,
    }
    return await new Promise((resolve) => {
      execFile(join(root, 'examples', script), argv, { env, timeout: limitMs }, (error, stdout, stderr) =>
        resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
      )
    })
  }

  async hasNothingLeft(): Promise<void> {
    assert.deepEqual((await this.daemon.status()).mounts, [])
    const { directory } = this.daemon
    const leftovers = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(directory) && !line.split(' ')[4]!.startsWith(`${directory}/state/`))
    assert.deepEqual(leftovers, [])
  }
}

/** The program of a stand-in: it reads the first bytes of the image and writes to the scratch, as its own user. */
const useDrives = (directory: string): string =>
  `echo "user $(id -u), $(id -G)"; head -c 65536 ${directory}/rootfs.img | sha256sum; ` +
  `printf mark | dd of=${directory}/scratch.img conv=notrunc status=none && echo written`

function sha256OfStart(file: string): string {
  return execFileSync('sh', ['-c', 'head -c 65536 "$1" | sha256sum', 'sh', file], { encoding: 'utf8' }).trim()
}

test('qemu.sh boots VMs of an image as another user, past the page cache or through it, and leaves nothing', async (t) => {
  const host = await LauncherHost.create(t)
  const outcomes = await Promise.all([
    host.launch('qemu.sh', ['local:guest', host.kernel, 'quiet', 'mitigations=off']),
    host.launch('qemu.sh', ['local:guest', host.kernel, 'quiet', 'mitigations=off'], {
      VM_ROOT_IO: 'cache=none,aio=io_uring',
    }),
  ])
  for (const { status, stdout, stderr } of outcomes) {
    assert.match(stdout, /busybox guest: 1 written written/, `${stdout}\n${stderr}`)
    assert.equal(status, 0, stderr)
  }
  await host.hasNothingLeft()
})

test('a launcher whose VMM fails ends with its status, and leaves nothing', async (t) => {
  const host = await LauncherHost.create(t)
  for (const [script, program] of [
    ['qemu.sh', 'qemu-system-x86_64'],
    ['cloud-hypervisor.sh', 'cloud-hypervisor'],
    ['firecracker.sh', 'jailer'],
  ] as const) {
    host.program('firecracker', 'exit 0')
    host.program(program, 'exit 7')
    const jails = { VM_JAILS: join(host.daemon.directory, 'jails') }
    assert.equal((await host.launch(script, ['local:guest', host.kernel], jails)).status, 7, script)
    const absent = await host.launch(script, ['local:absent', host.kernel], jails)
    assert.notEqual(absent.status, 0)
    assert.match(absent.stderr, /local:absent/)
    await host.hasNothingLeft()
  }
  assert.deepEqual(readdirSync(join(host.daemon.directory, 'jails/firecracker')), [])
})

test('firecracker.sh makes a jail in which its user opens both drives, and a configuration as it is documented', async (t) => {
  const host = await LauncherHost.create(t)
  const jails = join(host.daemon.directory, 'jails')
  host.program('firecracker', 'exit 0')
  // As the jailer does it (src/jailer/src/chroot.rs): mounts become slaves, the jail is bound to itself with all in it.
  host.program(
    'jailer',
    `echo "$*" >&2
while [ "$1" != -- ]; do
  case $1 in --id) id=$2 ;; --exec-file) exec=$2 ;; --uid) uid=$2 ;; --gid) gid=$2 ;; --chroot-base-dir) base=$2 ;; esac
  shift 2
done
jail=$base/$(basename "$exec")/$id/root
export jail uid gid
exec unshare --mount --propagation slave sh -c '
  mount --rbind "$jail" "$jail"; cd "$jail"
  mkdir usr; mount --bind /usr usr; for d in bin lib lib64; do ln -s "usr/$d" "$d"; done
  exec chroot --userspec="$uid:$gid" --groups= . /bin/sh -c "$0"' 'cat /vm.json; ${useDrives('/drives')}'`,
  )
  const settings = { VM_JAILS: jails, VM_ID: 'one', VM_CPUS: '2', VM_MEMORY: '256' }
  const { status, stdout, stderr } = await host.launch(
    'firecracker.sh',
    ['local:guest', host.kernel, 'quiet'],
    settings,
  )
  assert.equal(status, 0, stderr)
  const end = stdout.indexOf('\n}\n') + 3
  assert.equal(
    stdout.slice(end),
    `user ${user}, ${user}\n${sha256OfStart(join(host.daemon.directory, 'guest.img'))}\nwritten\n`,
  )
  assert.match(
    stderr,
    /--id one --exec-file \S+\/firecracker --uid 12345 --gid 12345 .* -- --no-api --config-file \/vm.json/,
  )
  // BootSource, Drive and MachineConfiguration of src/firecracker/swagger/firecracker.yaml.
  const drive = (id: string, isRoot: boolean): object => ({
    drive_id: id,
    path_on_host: `/drives/${id}.img`,
    is_root_device: isRoot,
    is_read_only: isRoot,
    io_engine: 'Sync',
  })
  assert.deepEqual(JSON.parse(stdout.slice(0, end)), {
    'boot-source': {
      kernel_image_path: '/vmlinux',
      boot_args: 'console=ttyS0 reboot=k panic=1 pci=off init=/sbin/overlay-init quiet',
    },
    drives: [drive('rootfs', true), { ...drive('scratch', false), cache_type: 'Unsafe' }],
    'machine-config': { vcpu_count: 2, mem_size_mib: 256 },
  })
  await host.hasNothingLeft()
  assert.deepEqual(readdirSync(join(jails, 'firecracker')), [])
})

test('cloud-hypervisor.sh gives its user both drives, of a stated type', async (t) => {
  const host = await LauncherHost.create(t)
  host.program(
    'cloud-hypervisor',
    `echo "$*" >&2
while [ "$1" != --disk ]; do shift; done
drives=$(dirname "\${2#path=}"); ${useDrives('"$drives"')}`,
  )
  const { status, stdout, stderr } = await host.launch('cloud-hypervisor.sh', ['local:guest', host.kernel, 'quiet'])
  assert.equal(status, 0, stderr)
  assert.match(
    stdout,
    new RegExp(`^user ${user}, .*\n${sha256OfStart(join(host.daemon.directory, 'guest.img'))}\nwritten\n$`),
  )
  assert.match(
    stderr,
    /--disk path=(\S+)\/rootfs.img,readonly=on,image_type=raw path=\1\/scratch.img,image_type=raw,direct=on --kernel/,
  )
  await host.hasNothingLeft()
})

test('runc.sh runs a command in the files of an image, and leaves nothing', async (t) => {
  const host = await LauncherHost.create(t)
  const { gzip } = await debianImages()
  const script = 'head -1 /etc/os-release && echo written > /tmp/file && cat /tmp/file && exit 7'
  const settings = { CONTAINER_ID: `p2pfs-test-${process.pid}`, CONTAINER_WRITES: '64MiB' }
  const argv = [`oci:${gzip.layoutDirectory}:${gzip.tag}`, '/bin/sh', '-c', script]
  const { status, stdout, stderr } = await host.launch('runc.sh', argv, settings)
  assert.match(stdout, /Debian[^\n]*\nwritten\n/, stderr)
  assert.equal(status, 7)
  await host.hasNothingLeft()
})
