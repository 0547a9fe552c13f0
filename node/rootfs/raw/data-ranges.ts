import { spawn } from 'node:child_process'
import { rawChunkBytes } from '../../../protocol/raw-image.ts'

/**
 * The list of a file in more parts than some hundred thousand is given up (bytes): reading the zeros costs less than
 * telling where they are.
 */
const maxListBytes = 8 * 1024 * 1024

/**
 * Lists the parts of its input that are no holes: lseek(2), SEEK_DATA is 3 and SEEK_HOLE is 4; errno 6, ENXIO, is the
 * end.
 */
const program = `my ($at, $end) = (0, $ARGV[0]);
while ($at < $end) {
  my $data = sysseek(STDIN, $at, 3);
  if (!defined $data) { exit($! + 0 == 6 ? 0 : 1) }
  $at = sysseek(STDIN, $data, 4) // exit(1);
  printf("%d %d\\n", $data, $at);
}`

/** First and last but one chunk of a part of a raw image. */
export interface ChunkRange {
  first: number
  end: number
}

/**
 * Finds the chunks of a file that are not wholly in its holes; Node has no call for that. The position of the file is
 * moved.
 * @returns in order, no two of which touch; undefined where the filesystem does not tell, or nobody here can ask it
 * @throws the signal's reason
 */
export async function dataRanges(
  { fd, sizeBytes }: { fd: number; sizeBytes: number },
  { signal }: { signal: AbortSignal },
): Promise<ChunkRange[] | undefined> {
  const list = await listOf(fd, sizeBytes, signal)
  signal.throwIfAborted()
  if (list === undefined) return undefined
  const ranges: ChunkRange[] = []
  for (const line of list.split('\n')) {
    if (line === '') continue
    const [start = 0, stop = 0] = line.split(' ').map(Number)
    const [first, end] = [Math.floor(start / rawChunkBytes), Math.ceil(Math.min(stop, sizeBytes) / rawChunkBytes)]
    const last = ranges.at(-1)
    if (last !== undefined && first <= last.end) last.end = Math.max(last.end, end)
    else ranges.push({ first, end })
  }
  return ranges
}

async function listOf(fd: number, sizeBytes: number, signal: AbortSignal): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const child = spawn('perl', ['-e', program, String(sizeBytes)], { stdio: [fd, 'pipe', 'ignore'], signal })
    let text = ''
    child.stdout!.setEncoding('utf8').on('data', (piece: string) => {
      text += piece
      if (text.length > maxListBytes) child.kill()
    })
    child.on('error', () => resolve(undefined))
    child.on('close', (status) => resolve(status === 0 ? text : undefined))
  })
}
