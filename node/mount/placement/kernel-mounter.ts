import { arch } from 'node:os'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'
import { limitReadAhead, withLimitedReadAhead } from './kernel-read-ahead.ts'
import { readMounts } from './mountinfo.ts'
import type { RunTool, ToolResult } from './run-tool.ts'

/** mount(2), and MS_RDONLY of linux/mount.h. */
const mountCalls: Partial<Record<string, number>> = { x64: 165, arm64: 40 }
const readOnly = 1

/** Mounts by the host's kernel. All methods throw unavailable where mount(8) fails. */
export class KernelMounter {
  readonly #run: RunTool

  constructor({ run }: { run: RunTool }) {
    this.#run = run
  }

  /**
   * A rootfs image, read-only. EROFS is mounted from the file itself where the kernel can (Linux 6.12); everything else
   * through a loop device.
   */
  async image(file: string, directory: string, format: RootfsFormat): Promise<void> {
    if (format === 'erofs' && (await withLimitedReadAhead('erofs', async () => await this.#file(file, directory))).ok)
      return
    // noload: there is no journal, and the image must not be written.
    await this.#mount(
      ['-t', format, '-o', format === 'ext4' ? 'ro,loop,noload' : 'ro,loop', file, directory],
      directory,
    )
    // It costs bytes, not the mount.
    await limitReadAhead(directory).catch(() => undefined)
  }

  /** An ext4 disk in a file, writable. */
  async disk(file: string, directory: string): Promise<void> {
    await this.#mount(['-t', 'ext4', '-o', 'loop,noatime', file, directory], directory)
  }

  /** Volatile: it ends with its mount, so nothing has to reach a disk for its sake. */
  async overlay(layers: { lower: string; upper: string; work: string }, directory: string): Promise<void> {
    const { lower, upper, work } = layers
    const options = Object.entries({ lowerdir: lower, upperdir: upper, workdir: work }).map(
      ([name, path]) => `${name}=${path.replace(/[\\,:]/g, '\\$&')}`,
    )
    await this.#mount(['-t', 'overlay', '-o', [...options, 'volatile'].join(','), 'p2pfs', directory], directory)
  }

  async bind(source: string, directory: string): Promise<void> {
    await this.#mount(['--bind', source, directory], directory)
  }

  /** Nothing where nothing is mounted. @throws conflict where it is in use */
  async unmount(directory: string): Promise<void> {
    const result = await this.#run('umount', [directory])
    if (result.ok || !(await readMounts()).some(({ mountPoint }) => mountPoint === directory)) return
    throw new P2pfsError(
      'conflict',
      `cannot umount ${directory}: ${result.message}; stop what uses it (fuser -m, losetup -a) and try again`,
      { directory },
    )
  }

  /** mount(8) puts a loop device under every file, with no way round it before util-linux 2.41: so by the system call. */
  async #file(file: string, directory: string): Promise<ToolResult> {
    const call = mountCalls[arch()]
    if (call === undefined) return { ok: false, message: 'not for this architecture' }
    const program = `my ($file, $directory) = @ARGV; my ($type, $data) = ("erofs", ""); exit(syscall(${call}, $file, $directory, $type, ${readOnly}, $data) == 0 ? 0 : 1)`
    return await this.#run('perl', ['-e', program, file, directory])
  }

  async #mount(argv: string[], directory: string): Promise<void> {
    const result = await this.#run('mount', argv)
    if (!result.ok)
      throw new P2pfsError('unavailable', `cannot mount on ${directory}: ${result.message}`, { directory })
  }
}
