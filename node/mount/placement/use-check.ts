import { arch } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { escapeOverlayPath } from './kernel-mounter.ts'
import type { RunTool } from './run-tool.ts'
import { mountCalls } from './system-calls.ts'

/** Whether anybody uses something; `unknown` if the kernel does not say. */
export type Use = 'free' | 'in use' | 'unknown'

/** From asm-generic/errno-base.h. */
const errnos = { ENOENT: '2', EAGAIN: '11', EBUSY: '16', EINVAL: '22' }

/**
 * A loop device lets go of its file a moment after its last unmount: an open file is looked at again before it counts
 * as in use.
 */
const retries = { count: 3, pauseMs: 50 }

/**
 * A write lease is granted only for a file that nobody else has open, loop devices included: F_SETLEASE of fcntl(2).
 */
const leaseProgram = `my ($file) = @ARGV;
open(my $handle, "+<", $file) or do { print STDERR $! + 0; exit 1 };
print STDERR defined(fcntl($handle, 1024, 1)) ? 0 : $! + 0;`

/**
 * An overlay locks its upper layer for as long as any mount of it is left, in any mount namespace, even a detached one.
 * With index=on a second overlay is refused such a layer (EBUSY). This one is never mounted: the kernel refuses an
 * upper layer that is its own work directory (EINVAL), after it has looked at the lock.
 */
const overlayProgram = (call: number): string => `my ($directory, $options) = @ARGV;
my ($source, $type) = ("p2pfs", "overlay");
print STDERR syscall(${call}, $source, $directory, $type, 0, $options) == 0 ? 0 : $! + 0;`

/** Asks the kernel whether writable layers and drives are in use before they are deleted. */
export class UseCheck {
  readonly #run: RunTool

  constructor({ run }: { run: RunTool }) {
    this.#run = run
  }

  /** Whether a file is open, whoever has it open. A file that is not there is free. */
  async ofFile(file: string): Promise<Use> {
    let errno = await this.#errno(leaseProgram, file)
    for (let i = 0; i < retries.count && errno === errnos.EAGAIN; i++) {
      await sleep(retries.pauseMs)
      errno = await this.#errno(leaseProgram, file)
    }
    if (errno === errnos.EAGAIN) return 'in use'
    return errno === '0' || errno === errnos.ENOENT ? 'free' : 'unknown'
  }

  /** Whether an overlay has this directory as its upper layer. */
  async ofUpperLayer(upper: string): Promise<Use> {
    const call = mountCalls[arch()]
    if (call === undefined) return 'unknown'
    const path = escapeOverlayPath(upper)
    const options = `lowerdir=${path},upperdir=${path},workdir=${path},index=on`
    const errno = await this.#errno(overlayProgram(call), upper, options)
    if (errno === errnos.EBUSY) return 'in use'
    return errno === errnos.EINVAL ? 'free' : 'unknown'
  }

  /** Runs a perl program that prints an error number. */
  async #errno(program: string, ...argv: string[]): Promise<string> {
    const { message } = await this.#run('perl', ['-e', program, ...argv])
    return message.trim()
  }
}
