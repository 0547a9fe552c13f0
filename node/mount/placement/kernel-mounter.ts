import { mkdir, rmdir } from 'node:fs/promises'
import { arch } from 'node:os'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'
import { sourceOf } from './filesystem-source.ts'
import { limitReadAhead, withLimitedReadAhead } from './kernel-read-ahead.ts'
import { identityOf, locate, readMounts, type MountInfo } from './mountinfo.ts'
import type { RunTool, ToolResult } from './run-tool.ts'
import {
  bindProgram,
  configCommands,
  currentDirectory,
  filesystemCalls,
  mountAttributes,
  mountCalls,
  mountReadOnly,
  moveMountEmptyPath,
  type MountOption,
} from './system-calls.ts'

/**
 * Mounts EROFS over several files, one option a call: all of them in one text would have to fit into a page. Names of devices
 * are short, and relative to a directory, because the kernel takes 255 bytes. The kernel reads the files directly, so
 * that their pages are kept once.
 */
const devicesProgram = `my ($within, $file, $directory, @devices) = @ARGV;
my ($type, $empty) = ("erofs", "");
chdir($within) or die "$within: $!\n";
my $fs = syscall(${filesystemCalls.open}, $type, 1);
die "fsopen: $!\n" if $fs < 0;
sub set {
  my ($command, $key, $value) = @_;
  syscall(${filesystemCalls.config}, $fs, $command, $key, $value, 0) == 0 or die "fsconfig $key: $!\n";
}
my ($ro, $directio, $source, $device) = ("ro", "directio", "source", "device");
set(${configCommands.setFlag}, $ro, 0);
set(${configCommands.setFlag}, $directio, 0);
set(${configCommands.setString}, $source, $file);
set(${configCommands.setString}, $device, $_) for map { "$_" } @devices;
syscall(${filesystemCalls.config}, $fs, ${configCommands.create}, 0, 0, 0) == 0 or die "superblock: $!\n";
my $mount = syscall(${filesystemCalls.mount}, $fs, 1, ${mountAttributes.ro});
die "fsmount: $!\n" if $mount < 0;
syscall(${filesystemCalls.moveMount}, $mount, $empty, ${currentDirectory}, $directory, ${moveMountEmptyPath}) == 0
  or die "move_mount: $!\n";`

/** Mounts by the host's kernel. All methods that mount throw unavailable if mount(8) fails. */
export class KernelMounter {
  readonly #run: RunTool

  constructor({ run }: { run: RunTool }) {
    this.#run = run
  }

  /**
   * A rootfs image, read-only. EROFS is mounted from the file itself if the kernel can (Linux 6.12), and everything
   * else through a loop device.
   */
  async image(file: string, directory: string, format: RootfsFormat): Promise<void> {
    if (format === 'erofs' && (await withLimitedReadAhead('erofs', async () => await this.#file(file, directory))).ok)
      return
    // noload: there is no journal, and the image must not be written.
    await this.#mount(
      ['-t', format, '-o', format === 'ext4' ? 'ro,loop,noload' : 'ro,loop', file, directory],
      directory,
    )
    // More read-ahead than wanted costs bytes, not the mount.
    await limitReadAhead(directory).catch(() => undefined)
  }

  /**
   * EROFS whose blocks are in several files, read-only. It takes Linux 6.12, and its option directio.
   * @param devices names of files, in the order of the device table
   * @param options `within`: the directory of these files
   */
  async devices(
    file: string,
    devices: readonly string[],
    directory: string,
    { within }: { within: string },
  ): Promise<void> {
    const { ok, message } = await this.#run('perl', ['-e', devicesProgram, within, file, directory, ...devices])
    if (!ok) throw new P2pfsError('unavailable', `cannot mount on ${directory}: ${message}`, { directory })
  }

  /** An ext4 disk in a file, writable. */
  async disk(file: string, directory: string): Promise<void> {
    await this.#mount(['-t', 'ext4', '-o', 'loop,noatime', file, directory], directory)
  }

  /** A volatile overlay: what is written ends with its mount, so nothing has to reach a disk for its sake. */
  async overlay(layers: { lower: string; upper: string; work: string }, directory: string): Promise<void> {
    const { lower, upper, work } = layers
    const options = Object.entries({ lowerdir: lower, upperdir: upper, workdir: work }).map(
      ([name, path]) => `${name}=${escapeOverlayPath(path)}`,
    )
    await this.#mount(
      ['-t', 'overlay', '-o', [...options, 'volatile'].join(','), sourceOf(directory), directory],
      directory,
    )
  }

  async bind(source: string, directory: string): Promise<void> {
    await this.#mount(['--bind', source, directory], directory)
  }

  /** Binds a directory with all that is mounted in it, at once. */
  async bindTree(source: string, directory: string): Promise<void> {
    await this.#mount(['--rbind', source, directory], directory)
  }

  /**
   * A tmpfs for a few empty files that others are bound over. It is private: where the state directory's own mount is
   * shared, as with systemd, a bind of it would follow what is mounted and unmounted in it.
   */
  async placeholders(directory: string): Promise<void> {
    const options = 'mode=555,size=16k,nr_inodes=16,nosuid,nodev,noexec'
    await this.#mount(['--make-private', '-t', 'tmpfs', '-o', options, sourceOf(directory), directory], directory)
  }

  /** Makes a filesystem read-only, also for mounts that are bound from it later. */
  async makeReadOnly(directory: string): Promise<void> {
    await this.#mount(['-o', 'remount,ro', directory], directory)
  }

  /**
   * Binds with options that belong to this mount alone: other mounts of the filesystem keep theirs. The directory never
   * has a mount without them. mount(8) sets them in a second step, so where system calls do not do it (before Linux 5.12,
   * or without perl), that step is done elsewhere, and a bind of a bind has its options.
   * @param place where the second step is done: a name for a directory that others than root cannot reach
   */
  async bindWith(options: readonly MountOption[], source: string, directory: string, place: string): Promise<void> {
    const attributes = options.reduce((sum, option) => sum + mountAttributes[option], 0)
    if ((await this.#run('perl', ['-e', bindProgram, source, directory, String(attributes)])).ok) return
    await mkdir(place, { recursive: true, mode: 0o700 })
    try {
      await this.bind(source, place)
      await this.#mount(['-o', ['remount', 'bind', ...options].join(','), place], directory)
      await this.bind(place, directory)
    } finally {
      // The next daemon ends what is left of this. It is no reason to fail: the directory has its mount.
      await this.unmountFrom(place).catch(() => undefined)
      await rmdir(place).catch(() => undefined)
    }
  }

  /**
   * Unmounts what was mounted last on a directory, however the path is spelt.
   * @returns whether something was
   * @throws conflict if it is in use
   */
  async unmountFrom(directory: string): Promise<boolean> {
    const mount = (await locate(directory))?.mount
    if (mount === undefined) return false
    await this.unmount(mount)
    return true
  }

  /**
   * Unmounts this very mount and no other.
   * @throws conflict if it is in use, or another filesystem is mounted over it
   */
  async unmount(mount: MountInfo): Promise<void> {
    await this.#unmount(mount, [])
  }

  /**
   * Unmounts this very mount with all that is mounted in it, at once, whoever uses it: what is open stays open.
   * @throws conflict if another filesystem is mounted over it
   */
  async detach(mount: MountInfo): Promise<void> {
    await this.#unmount(mount, ['--lazy'])
  }

  /** @throws conflict if another filesystem is mounted over this mount */
  async refuseCovered(mount: MountInfo): Promise<void> {
    const { mountPoint: directory } = mount
    const top = (await locate(directory))?.mount
    if (top === undefined || identityOf(top) === identityOf(mount)) return
    throw new P2pfsError(
      'conflict',
      `cannot umount ${directory}: another filesystem is mounted over it; umount that first`,
      { directory },
    )
  }

  async #unmount(mount: MountInfo, options: readonly string[]): Promise<void> {
    await this.refuseCovered(mount)
    const { mountPoint: directory } = mount
    const result = await this.#run('umount', [...options, directory])
    const identity = identityOf(mount)
    if (result.ok || (await readMounts()).every((standing) => identityOf(standing) !== identity)) return
    throw new P2pfsError(
      'conflict',
      `cannot umount ${directory}: ${inShort(result.message, directory)}; stop what uses it (fuser -vm ${directory}, losetup -a) and ` +
        'try again',
      { directory },
    )
  }

  /**
   * Before util-linux 2.41 mount(8) puts a loop device under every file, with no way around it: so this is the system
   * call.
   */
  async #file(file: string, directory: string): Promise<ToolResult> {
    const call = mountCalls[arch()]
    if (call === undefined) return { ok: false, message: 'not for this architecture' }
    const program = `my ($file, $directory) = @ARGV; my ($type, $data) = ("erofs", "");
exit(syscall(${call}, $file, $directory, $type, ${mountReadOnly}, $data) == 0 ? 0 : 1)`
    return await this.#run('perl', ['-e', program, file, directory])
  }

  async #mount(argv: string[], directory: string): Promise<void> {
    const result = await this.#run('mount', argv)
    if (result.ok) return
    const why = inShort(result.message, directory)
    const advice = why.includes('loop device') ? '; modprobe loop, or give the container its devices' : ''
    throw new P2pfsError('unavailable', `cannot mount on ${directory}: ${why}${advice}`, { directory })
  }
}

/** The error of mount(8) or umount(8), without its name, the directory and the dot at the end: they stand in a sentence. */
function inShort(message: string, directory: string): string {
  const [line = ''] = message.split('\n')
  return line
    .replace(/^u?mount: /, '')
    .replace(`${directory}: `, '')
    .replace(/\.$/, '')
}

/** A path as an option of overlayfs. */
export function escapeOverlayPath(path: string): string {
  return path.replace(/[\\,:]/g, '\\$&')
}
