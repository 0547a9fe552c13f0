import { mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../../protocol/errors.ts'
import { SingleFlight } from '../../base/single-flight.ts'
import type { RunTool } from './run-tool.ts'

/** Below this ext4 has no room for itself; above it, none of its kinds of bookkeeping, bytes. */
const minBytes = 1024 * 1024
const maxBytes = 8 * 2 ** 40
const blockBytes = 4096
/**
 * No journal: the disk does not outlive its machine. No blocks for root alone, no room to grow, no backups. Inode tables
 * count as zeroed, so that no kernel fills the file in the background.
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
/** What the kernel keeps back for its own bookkeeping: a fiftieth, at most this many blocks (ext4_calculate_resv_clusters in fs/ext4/super.c). */
const maxKeptBlocks = 4096
/** For the first directories on it, which an overlay makes before anybody writes. */
const spareBlocks = 16
/** Each attempt adds what the last one lacked. */
const maxAttempts = 5

/** Empty ext4 disks in sparse files, each copied from one that is made once for its size. */
export class DiskTemplates {
  readonly #run: RunTool
  readonly #directory: string
  readonly #making = new SingleFlight<string>()

  /** @param directory where templates are kept; a few hundred KiB each */
  constructor({ run }: { run: RunTool }, { directory }: { directory: string }) {
    this.#run = run
    this.#directory = directory
  }

  /**
   * Puts an empty disk at `path`, replacing what stands there.
   * @param usableBytes what `df` on it has available
   * @throws invalid for a size that it cannot have; unsupported without e2fsprogs; unavailable where the host's disk is full
   */
  async copyTo(path: string, usableBytes: number, { signal }: { signal: AbortSignal }): Promise<void> {
    if (!Number.isSafeInteger(usableBytes) || usableBytes < minBytes || usableBytes > maxBytes) {
      throw new P2pfsError('invalid', `a disk of ${usableBytes} bytes cannot be made; it takes 1 MiB to 8 TiB`)
    }
    const template = await this.#making.run(String(usableBytes), signal, async () => await this.#template(usableBytes))
    const partial = `${path}.partial`
    const copied = await this.#run('cp', ['--sparse=always', '--reflink=auto', template, partial])
    if (!copied.ok) {
      await rm(partial, { force: true })
      throw new P2pfsError('unavailable', `cannot make the disk ${path}: ${copied.message}`, { path })
    }
    await rename(partial, path)
  }

  async #template(usableBytes: number): Promise<string> {
    const path = join(this.#directory, `${usableBytes}.img`)
    const there = await stat(path).catch(() => undefined)
    if (there !== undefined) return path
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    const partial = `${path}.partial`
    const usableBlocks = Math.ceil(usableBytes / blockBytes) + spareBlocks
    // Inode tables take a 64th.
    let blocks = Math.ceil(usableBlocks * (1 + 1 / 64)) + 64
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      await makeSparse(partial, blocks * blockBytes)
      const made = await this.#run('mke2fs', [...ext4Options, partial])
      if (!made.ok)
        throw new P2pfsError('unsupported', `cannot make an ext4 disk: ${made.message}; is e2fsprogs installed?`)
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

/** From the superblock: the low 32 bits of the count. */
async function freeBlocks(path: string): Promise<number> {
  await using file = await open(path)
  const superblock = Buffer.alloc(1024)
  await file.read(superblock, 0, superblock.length, 1024)
  return superblock.readUInt32LE(12)
}
