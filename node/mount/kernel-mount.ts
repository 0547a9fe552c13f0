import { arch } from 'node:os'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { readMounts } from './mountinfo.ts'
import { runTool, type ToolResult } from './run-tool.ts'

/** mount(2), and MS_RDONLY of linux/mount.h. */
const mountCalls: Partial<Record<string, number>> = { x64: 165, arm64: 40 }
const readOnly = 1

/**
 * Mounts a rootfs image with the host's kernel, read-only. EROFS is mounted from the file itself where the kernel can
 * (Linux 6.12); everything else through a loop device.
 * @throws unavailable where mount(8) fails
 */
export async function mountImage(file: string, directory: string, format: RootfsFormat): Promise<void> {
  if (format === 'erofs' && (await mountFile(file, directory)).ok) return
  // noload: there is no journal, and the image must not be written.
  await mount(['-t', format, '-o', format === 'ext4' ? 'ro,loop,noload' : 'ro,loop', file, directory], directory)
}

/** mount(8) puts a loop device under every file, with no way round it before util-linux 2.41: so by the system call. */
async function mountFile(file: string, directory: string): Promise<ToolResult> {
  const call = mountCalls[arch()]
  if (call === undefined) return { ok: false, message: 'not for this architecture' }
  const program = `my ($file, $directory) = @ARGV; my ($type, $data) = ("erofs", ""); exit(syscall(${call}, $file, $directory, $type, ${readOnly}, $data) == 0 ? 0 : 1)`
  return await runTool('perl', ['-e', program, file, directory])
}

/** @throws unavailable */
export async function mountDisk(file: string, directory: string): Promise<void> {
  await mount(['-t', 'ext4', '-o', 'loop,noatime', file, directory], directory)
}

/** @throws unavailable */
export async function mountOverlay(layers: { lower: string; upper: string; work: string }, directory: string): Promise<void> {
  const { lower, upper, work } = layers
  const options = Object.entries({ lowerdir: lower, upperdir: upper, workdir: work }).map(([name, path]) => `${name}=${path.replace(/[\\,:]/g, '\\$&')}`)
  await mount(['-t', 'overlay', '-o', options.join(','), 'p2pfs', directory], directory)
}

/** @throws unavailable */
export async function bindMount(source: string, directory: string): Promise<void> {
  await mount(['--bind', source, directory], directory)
}

/** Nothing where nothing is mounted. @throws conflict where it is in use */
export async function unmount(directory: string): Promise<void> {
  const result = await runTool('umount', [directory])
  if (result.ok || !(await readMounts()).some(({ mountPoint }) => mountPoint === directory)) return
  throw new P2pfsError('conflict', `cannot umount ${directory}: ${result.message}; stop what uses it (fuser -m, losetup -a) and try again`, { directory })
}

async function mount(argv: string[], directory: string): Promise<void> {
  const result = await runTool('mount', argv)
  if (!result.ok) throw new P2pfsError('unavailable', `cannot mount on ${directory}: ${result.message}`, { directory })
}
