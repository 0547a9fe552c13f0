import { spawn } from 'node:child_process'
import { open } from 'node:fs/promises'
import { arch } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestHex, type Digest } from '../../../protocol/digest.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { hashBytes } from '../../base/hashing.ts'
import { toolEnvironment } from '../placement/run-tool.ts'

/** Number of copy_file_range(2) by architecture, as Node names them: asm/unistd_64.h, asm-generic/unistd.h. */
const copyCalls: Partial<Record<string, number>> = { x64: 326, arm64: 285 }

/** How fast segments are read and hashed in the background (bytes a second): a seventh of a core. */
const verifyBytesPerSecond = 128 * 1024 * 1024
/** Bytes between two pauses. */
const stepBytes = 4 * 1024 * 1024

/**
 * Copies chunk files, one a line with its length, to one file. Where the filesystem shares blocks between files (XFS,
 * btrfs), copy_file_range(2) does that, and nothing is copied.
 */
const copyProgram = (call: number): string => `use Fcntl;
my ($target) = @ARGV;
sysopen(my $out, $target, O_WRONLY | O_CREAT | O_EXCL, 0600) or die "$target: $!";
while (<STDIN>) {
  my ($length, $file) = /^(\\d+) (.*)$/ or die "line";
  sysopen(my $in, $file, O_RDONLY) or die "$file: $!";
  while ($length > 0) {
    my $copied = syscall(${call}, fileno($in), 0, fileno($out), 0, $length, 0);
    die "$file: $!" if $copied < 0;
    die "$file is too short" if $copied == 0;
    $length -= $copied;
  }
  close($in);
}`

/**
 * Puts the chunks of a segment into one new file, in order, at the lowest priority.
 * @throws unavailable where a chunk is not here, or the disk refuses; unsupported on other architectures; the signal's
 *   reason
 */
export async function copySegment(
  table: ChunkTable,
  { chunkDirectory, target }: { chunkDirectory: string; target: string },
  { signal }: { signal: AbortSignal },
): Promise<void> {
  const call = copyCalls[arch()]
  if (call === undefined) throw new P2pfsError('unsupported', `no number is known for copy_file_range(2) on ${arch()}`)
  signal.throwIfAborted()
  const child = spawn('nice', ['-n', '19', 'perl', '-e', copyProgram(call), target], {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: toolEnvironment(),
  })
  const onAbort = (): void => void child.kill('SIGKILL')
  signal.addEventListener('abort', onAbort)
  let message = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (message = (message + text).slice(0, 500)))
  const status = new Promise<number | null>((resolve) => {
    child.on('error', () => resolve(null)).on('close', (code) => resolve(code))
  })
  // The child may have ended.
  child.stdin.on('error', () => undefined)
  for (let i = 0; i < table.count; i++) {
    const line = `${table.lengthAt(i)} ${chunkFile(chunkDirectory, table.digestAt(i))}\n`
    if (!child.stdin.write(line) && !child.stdin.destroyed)
      await Promise.race([new Promise((resolve) => child.stdin.once('drain', resolve)), status])
  }
  child.stdin.end()
  const code = await status
  signal.removeEventListener('abort', onAbort)
  signal.throwIfAborted()
  if (code !== 0)
    throw new P2pfsError('unavailable', `cannot put segment ${digestHex(table.id)} into a file: ${message.trim()}`)
}

/**
 * Reads a segment's file and hashes every chunk, paced.
 * @returns the first chunk whose bytes are not right; undefined where all are
 * @throws what the disk throws; the signal's reason
 */
export async function findDamage(
  table: ChunkTable,
  file: string,
  { signal, bytesPerSecond = verifyBytesPerSecond }: { signal: AbortSignal; bytesPerSecond?: number },
): Promise<Digest | undefined> {
  await using handle = await open(file, 'r')
  let sinceS = 0
  for (let i = 0; i < table.count; i++) {
    const length = table.lengthAt(i)
    const bytes = Buffer.allocUnsafeSlow(length)
    const { bytesRead } = await handle.read(bytes, 0, length, table.offsets[i])
    if (bytesRead !== length || (await hashBytes(bytes)) !== table.digestAt(i)) return table.digestAt(i)
    sinceS += length
    if (sinceS < stepBytes) continue
    await sleep((sinceS / bytesPerSecond) * 1_000, undefined, { signal, ref: false })
    sinceS = 0
  }
  return (await handle.stat()).size === table.sizeBytes ? undefined : table.id
}
