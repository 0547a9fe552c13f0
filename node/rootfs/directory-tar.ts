import { spawn } from 'node:child_process'
import { P2pfsError } from '../../protocol/errors.ts'

/** Bound on the kept end of tar(1)'s standard error, characters. */
const maxComplaint = 2000

/**
 * GNU tar's archive of a directory: names sorted, all attributes, holes as holes, and nothing that depends on the time
 * of its making. Sockets are left out.
 */
const options = [
  '--create',
  '--format=pax',
  '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime',
  '--sort=name',
  '--numeric-owner',
  '--xattrs',
  '--xattrs-include=*',
  '--sparse',
  // Later versions put the process id into the name of a sparse file.
  '--sparse-version=0.0',
  '--warning=no-file-ignored',
]

/** Streams the tar of a directory. @throws unavailable where tar(1) cannot read all of it */
export async function* tarOfDirectory(
  directory: string,
  { signal }: { signal: AbortSignal },
): AsyncGenerator<Uint8Array> {
  const child = spawn('tar', [...options, `--directory=${directory}`, '.'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
    signal,
  })
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint = (complaint + text).slice(-maxComplaint)))
  const ended = new Promise<number | null>((resolve, reject) => child.once('close', resolve).once('error', reject))
  ended.catch(() => undefined)
  try {
    for await (const piece of child.stdout) yield piece as Buffer
    if ((await ended) === 0) return
  } finally {
    child.kill()
  }
  throw new P2pfsError(
    'unavailable',
    `cannot read all of ${directory}: ${complaint.trim().split('\n').at(-1) ?? 'tar failed'}`,
    { directory },
  )
}
