import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { arch } from 'node:os'
import type { Log } from '../base/log.ts'
import { toolEnvironment } from '../mount/placement/run-tool.ts'
import type { Descriptors } from './descriptors.ts'

/** Number of sendmsg(2) by architecture, as Node names them: asm/unistd_64.h, asm-generic/unistd.h. */
const sendmsgCalls: Partial<Record<string, number>> = { x64: 46, arm64: 211 }

/** How long the service manager may take to read what it is told (s). */
const barrierSeconds = 5

/**
 * A perl program that sends datagrams to the socket of sd_notify(3). Its arguments are the number of sendmsg(2), the
 * socket, and the messages; one that stores a descriptor takes the next one from 3 on. It ends when all have been read,
 * by the protocol of sd_notify_barrier(3): the service manager knows the sender only while it lives.
 */
const program = `use Socket;
my ($call, $address, @messages) = @ARGV;
$address =~ s/^@/\\0/;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
connect($socket, pack_sockaddr_un($address)) or die "connect: $!";
my $send = sub {
  my ($text, $fd) = @_;
  my $part = pack("P Q", $text, length $text);
  my $control = defined $fd ? pack("Q i i i x4", 20, 1, 1, $fd) : "";
  my $message = pack("Q L x4 P Q", 0, 0, $part, 1) . (defined $fd ? pack("P Q", $control, 24) : pack("Q Q", 0, 0)) . pack("i x4", 0);
  die "sendmsg: $!" if syscall($call, fileno $socket, $message, 0) < 0;
};
my $next = 3;
$send->($_, /^FDSTORE=1$/m ? $next++ : undef) for @messages;
pipe(my $reader, my $writer) or die "pipe: $!";
$send->("BARRIER=1", fileno $writer);
close $writer;
alarm ${barrierSeconds};
sysread($reader, my $end, 1);`

/**
 * The program that has started this one and keeps what outlives it, by the protocol of sd_notify(3); nobody, if there
 * is none.
 */
export class ServiceManager {
  readonly #log: Log
  readonly #socket: string | undefined
  #last: Promise<void> = Promise.resolve()

  /** @param environment whose variable NOTIFY_SOCKET names the socket */
  constructor({ log }: { log: Log }, environment: NodeJS.ProcessEnv) {
    this.#log = log
    this.#socket = environment['NOTIFY_SOCKET']
  }

  /** Serves, or does so again. */
  async ready(status: string): Promise<void> {
    await this.#tell([`READY=1\nSTATUS=${status}`])
  }

  async reloading(): Promise<void> {
    await this.#tell(['RELOADING=1\nSTATUS=daemon is being replaced; mounts wait'])
  }

  async stopping(status: string): Promise<void> {
    await this.#tell([`STOPPING=1\nSTATUS=${status}`])
  }

  async status(status: string): Promise<void> {
    await this.#tell([`STATUS=${status}`])
  }

  /**
   * Has it keep descriptors for the next start, whatever ends this process. It drops that of a FUSE filesystem that has
   * ended. A socket on which nobody listens yet looks like one that has, so others are not to be polled.
   */
  async store(descriptors: Descriptors): Promise<void> {
    const kept = Object.entries(descriptors)
    await this.#tell(
      kept.map(([name]) => `FDSTORE=1\nFDNAME=${name}${name === 'fuse' ? '' : '\nFDPOLL=0'}`),
      kept.map(([, fd]) => fd),
    )
  }

  /** Has it close what it keeps. */
  async forget(names: readonly string[]): Promise<void> {
    await this.#tell(names.map((name) => `FDSTOREREMOVE=1\nFDNAME=${name}`))
  }

  /** One after the other, so that what was said last holds. Failures are logged. */
  async #tell(messages: readonly string[], descriptors: readonly number[] = []): Promise<void> {
    const socket = this.#socket
    if (socket === undefined || messages.length === 0) return
    this.#last = this.#last.then(async () => await this.#send(socket, messages, descriptors))
    await this.#last
  }

  async #send(socket: string, messages: readonly string[], descriptors: readonly number[]): Promise<void> {
    const call = sendmsgCalls[arch()]
    const child = spawn('perl', ['-e', program, String(call), socket, ...messages], {
      stdio: ['ignore', 'ignore', 'pipe', ...descriptors],
      env: toolEnvironment(),
    })
    let said = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (said += text))
    const [status] = (await once(child, 'close').catch((error: unknown) => [String(error)])) as [unknown]
    if (status !== 0) this.#log.warn('service manager cannot be told', { reason: said.trim(), status, messages })
  }
}
