import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readlinkSync } from 'node:fs'
import { arch } from 'node:os'
import type { Log } from '../base/log.ts'
import { toolEnvironment } from '../mount/placement/run-tool.ts'

/** Number of memfd_create(2) by architecture, as Node names them: asm/unistd_64.h, asm-generic/unistd.h. */
const memfdCreateCalls: Partial<Record<string, number>> = { x64: 319, arm64: 279 }

/** The name under which the kernel lists it; no path leads to it. */
const name = 'p2pfs-callers'

/** Makes the memory, says which descriptor it is, and keeps it until its input ends. Its arguments: the number of the call, and the name. */
const program = `$| = 1;
my ($call, $name) = @ARGV;
my $fd = syscall($call + 0, $name, 1);
die "memfd_create: $!" if $fd < 0;
print "$fd\\n";
<STDIN>;`

/**
 * Memory that lives as long as a process has its descriptor: it is in no file system, and other users cannot open it. Node has no call that
 * makes it.
 * @returns undefined where the host cannot, which the log says
 */
export async function openAnonymousMemory({ log }: { log: Log }): Promise<number | undefined> {
  const child = spawn('perl', ['-e', program, String(memfdCreateCalls[arch()]), name], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: toolEnvironment(),
  })
  const ended = once(child, 'close')
  ended.catch(() => undefined)
  try {
    const [said] = (await Promise.race([once(child.stdout, 'data'), ended])) as [Buffer | number | null]
    if (!Buffer.isBuffer(said)) throw new Error(`perl ended with ${said}`)
    return openSync(`/proc/${child.pid}/fd/${Number(said.toString())}`, 'r+')
  } catch (error) {
    log.warn('credentials of mounts will not be handed to the next daemon: no memory can be shared with it', { error })
    return undefined
  } finally {
    child.stdin.end()
    await ended.catch(() => undefined)
  }
}

/** Whether a descriptor of a process is such memory. */
export function isAnonymousMemory(pid: number, fd: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`) === `/memfd:${name} (deleted)`
  } catch {
    return false
  }
}
