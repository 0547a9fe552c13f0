import { spawn, type ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import type { Log } from '../base/log.ts'

/** Number of sync_file_range(2) by architecture, as Node names them: asm/unistd_64.h, asm-generic/unistd.h. */
const syncFileRange: Partial<Record<string, number>> = { x64: 277, arm64: 84 }
/**
 * Files whose writing has begun and is not done: 4 MiB. Reads wait behind as much in the disk's queue, which is 10 ms at
 * 400 MB/s; a disk of that speed needs no more to be busy.
 */
const filesAtOnce = 16
/** Less is not worth a process (bytes): a sync writes it in 10 ms. */
const beginAtBytes = 4 * 1024 * 1024
/** A pause that ends the process (ms). */
const idleMs = 2_000
/** Paths that wait for the process (bytes): some hundred. More are left to the next sync. */
const maxQueuedBytes = 64 * 1024

/** Takes paths of files, and begins to write each, when all but the last few have been written. Node has no such call. */
const program = `
  use constant { WAIT_BEFORE => 1, WRITE => 2 };
  my ($call, $at_once) = map { $_ + 0 } @ARGV;
  my @begun;
  while (my $path = <STDIN>) {
    chomp $path;
    open(my $file, '<', $path) or next;
    syscall($call, fileno($file), 0, 0, WRITE);
    push @begun, $file;
    syscall($call, fileno(shift @begun), 0, 0, WAIT_BEFORE) if @begun >= $at_once;
  }`

/**
 * Has the kernel write chunk files to the disk as they come, a few at a time, while many come. Otherwise a sync has
 * hundreds of MB to write at once, and reads wait behind these in the disk's queue. Nothing waits for it, nothing
 * counts as durable for it, and where it cannot run (without perl) the sync writes all.
 */
export class Writeback implements Disposable {
  readonly #log: Log
  #process: ChildProcess | undefined
  #isOff = syncFileRange[process.arch] === undefined
  /** That have come without a pause. */
  #bytes = 0
  readonly #pause: NodeJS.Timeout

  constructor({ log }: { log: Log }) {
    this.#log = log
    this.#pause = setTimeout(() => this.#end(), idleMs).unref()
  }

  /** A file of so many bytes has got its name. */
  noteWritten(path: string, lengthBytes: number): void {
    this.#pause.refresh()
    this.#bytes += lengthBytes
    if (this.#isOff || this.#bytes < beginAtBytes) return
    this.#process ??= this.#start()
    const paths = this.#process.stdin as Socket
    if (paths.writable && paths.writableLength < maxQueuedBytes) paths.write(`${path}\n`)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#pause)
    this.#end()
  }

  #start(): ChildProcess {
    const argv = ['-e', program, `${syncFileRange[process.arch]}`, `${filesAtOnce}`]
    const child = spawn('perl', argv, {
      stdio: ['pipe', 'ignore', 'ignore'],
      env: { PATH: process.env['PATH'], LC_ALL: 'C' },
    })
    child.on('error', (error) => {
      this.#isOff = true
      this.#log.debug('chunks are written to the disk by syncs alone', { error })
    })
    child.on('close', () => {
      if (this.#process === child) this.#process = undefined
    })
    const paths = child.stdin as Socket
    paths.on('error', () => undefined)
    // It ends with its input, however this process ends.
    paths.unref()
    child.unref()
    return child
  }

  #end(): void {
    this.#bytes = 0
    this.#process?.stdin?.end()
    this.#process = undefined
  }
}
