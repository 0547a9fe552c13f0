import { mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../../protocol/errors.ts'
import { SingleFlight } from '../../base/single-flight.ts'
import type { RunTool, ToolResult } from './run-tool.ts'

/**
 * Limits of a disk's size (bytes). Below the lower one ext4 has no room for itself; the upper one is what is tested.
 */
const minBytes = 1024 * 1024
const maxBytes = 8 * 2 ** 40
const blockBytes = 4096
/**
 * There is no journal, because the disk does not outlive its machine; no blocks for root alone, no room to grow, and no
 * backup superblocks. Inode tables count as zeroed, so that no kernel fills the file in the background.
 */
const ext4Options = [
  '-F',
  '-q',
  '-t',
  'ext4',
  '-b',
  String(blockBytes),
  '-m',
  '0',
  '-O',
  '^has_journal,^resize_inode,sparse_super2',
  '-E',
  'num_backup_sb=0,lazy_itable_init=0',
]
/**
 * The kernel keeps back a fiftieth of the blocks, at most this many (ext4_calculate_resv_clusters in fs/ext4/super.c).
 */
const maxKeptBlocks = 4096
/** Blocks for the directories that an overlay makes before anybody writes. */
const spareBlocks = 16
/** Attempts to find the size of the file: each adds the blocks that the last one lacked. */
const maxAttempts = 5

/** @throws invalid for a size that a disk cannot have */
export function checkDiskSize(usableBytes: number): void {
  if (!Number.isSafeInteger(usableBytes) || usableBytes < minBytes || usableBytes > maxBytes)
    throw new P2pfsError('invalid', `a disk of ${usableBytes} bytes cannot be made; it takes 1 MiB to 8 TiB`, {
      isUsage: true,
    })
}

/** Empty ext4 disks in sparse files. Each is copied from a template, which is made once for its size. */
export class DiskTemplates {
  readonly #run: RunTool
  readonly #directory: string
  readonly #making = new SingleFlight<string>()

  /** @param options `directory`: where templates are kept, a few hundred KiB each */
  constructor({ run }: { run: RunTool }, { directory }: { directory: string }) {
    this.#run = run
    this.#directory = directory
  }

  /**
   * Puts an empty disk at `path`, in place of the file that is there.
   * @param usableBytes the available bytes that `df` shows on it
   * @throws invalid for a size that a disk cannot have; unsupported without e2fsprogs; unavailable if the host's disk
   * is full
   */
  async copyTo(path: string, usableBytes: number, { signal }: { signal: AbortSignal }): Promise<void> {
    const template = await this.#templateOf(usableBytes, signal)
    const partial = `${path}.partial`
    const copied = await this.#copy(template, partial)
    if (!copied.ok) {
      await rm(partial, { force: true })
      throw new P2pfsError('unavailable', `cannot make the disk ${path}: ${copied.message}`, { path })
    }
    await rename(partial, path)
  }

  /**
   * Makes an empty disk of the very file that is at `path`: whoever reaches it by a mount finds the empty one.
   * @throws as {@link copyTo}; what was on the disk is gone then, too
   */
  async copyInto(path: string, usableBytes: number, { signal }: { signal: AbortSignal }): Promise<void> {
    const copied = await this.#copy(await this.#templateOf(usableBytes, signal), path)
    if (copied.ok) return
    throw new P2pfsError(
      'unavailable',
      `cannot make the disk ${path} anew: ${copied.message}; it is not usable until that succeeds, so try again`,
      { path },
    )
  }

  async #copy(template: string, path: string): Promise<ToolResult> {
    return await this.#run('cp', ['--sparse=always', '--reflink=auto', template, path])
  }

  async #templateOf(usableBytes: number, signal: AbortSignal): Promise<string> {
    checkDiskSize(usableBytes)
    return await this.#making.run(String(usableBytes), signal, async () => await this.#template(usableBytes))
  }

  async #template(usableBytes: number): Promise<string> {
    const path = join(this.#directory, `${usableBytes}.img`)
    const made = await stat(path).catch(() => undefined)
    if (made !== undefined) return path
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    const partial = `${path}.partial`
    const usableBlocks = Math.ceil(usableBytes / blockBytes) + spareBlocks
    // Inode tables take a 64th of the disk.
    let blocks = Math.ceil(usableBlocks * (1 + 1 / 64)) + 64
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      await makeSparse(partial, blocks * blockBytes)
      const result = await this.#run('mke2fs', [...ext4Options, partial])
      if (!result.ok)
        throw new P2pfsError('unsupported', `cannot make an ext4 disk: ${result.message}; is e2fsprogs installed?`)
      const missing = usableBlocks - (await freeBlocks(partial)) + Math.min(Math.ceil(blocks / 50), maxKeptBlocks)
      if (missing <= 0) {
        await rename(partial, path)
        return path
      }
      blocks += Math.ceil(missing * (1 + 1 / 32)) + 1
    }
    throw new P2pfsError('unsupported', `mke2fs makes no disk with ${usableBytes} bytes of room`)
  }
}

async function makeSparse(path: string, sizeBytes: number): Promise<void> {
  await rm(path, { force: true })
  await using file = await open(path, 'wx', 0o600)
  await file.truncate(sizeBytes)
}

/** Free blocks by the superblock: the low 32 bits of the count. */
async function freeBlocks(path: string): Promise<number> {
  await using file = await open(path)
  const superblock = Buffer.alloc(1024)
  await file.read(superblock, 0, superblock.length, 1024)
  return superblock.readUInt32LE(12)
}
