import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { toolEnvironment } from '../mount/placement/run-tool.ts'
import { listenVariables, type DescriptorName, type Descriptors } from './descriptors.ts'

/** How often this process tries to take descriptors from one that may be ending. */
const maxAttempts = 5
/** Variable with how often this process has tried, and what was wrong the last time. */
const attemptVariable = 'P2PFS_TAKE_OVER'

/** A process that has what outlives a supervisor. */
export interface Owner {
  pid: number
  descriptors: Descriptors
}

/**
 * A perl program that takes descriptors of another process, puts them from 3 on, and becomes a command. Its arguments are the
 * process, the numbers of the descriptors there with commas, device and inode of the file that the second of them has to be,
 * what to say of a failure, and the command. pidfd_open(2) and pidfd_getfd(2) have one number for all architectures; the
 * second came with Linux 5.6, and needs CAP_SYS_PTRACE.
 */
const program = `use POSIX ();
my ($pid, $numbers, $file, $attempt, @command) = @ARGV;
my $failed = sub { delete @ENV{grep /^LISTEN_/, keys %ENV}; $ENV{${attemptVariable}} = "$attempt $_[0]: $!"; exec @command; exit 1 };
my $process = syscall(434, $pid + 0, 0);
$failed->("pidfd_open") if $process < 0;
my @high;
for my $number (split /,/, $numbers) {
  my $fd = syscall(438, $process, $number + 0, 0);
  $failed->("pidfd_getfd") if $fd < 0;
  my $to = 200 + @high;
  $failed->("dup2") unless defined POSIX::dup2($fd, $to);
  POSIX::close($fd);
  push @high, $to;
}
POSIX::close($process);
open(my $lock, "<&=", $high[1]) or $failed->("open");
my ($device, $inode) = stat($lock);
$failed->("the process is another one") if "$device:$inode" ne $file;
for my $i (0 .. $#high) {
  $failed->("dup2") unless defined POSIX::dup2($high[$i], 3 + $i);
}
POSIX::close($_) for @high;
$ENV{LISTEN_PID} = $$;
exec @command;
exit 1`

/** How often this process has failed to take over, and why at last. Removes the variable that says so. */
export function failedAttempts(environment: NodeJS.ProcessEnv): { count: number; reason: string } {
  const [, count = '0', reason = ''] = /^(\d+) (.*)$/.exec(environment[attemptVariable] ?? '') ?? []
  delete environment[attemptVariable]
  return { count: Number(count), reason }
}

/**
 * Becomes this program again, with the same command line and process id, and with the descriptors of another process, which
 * keeps them: node has no call to take them while it runs. All that is open here is closed. If the descriptors cannot be had, the
 * program starts without them, and {@link failedAttempts} then says why.
 * @param lockFile device and inode of the lock that the owner has to have
 * @throws conflict after too many attempts, or if there is no perl
 */
export function takeOver(owner: Owner, lockFile: string, failed: { count: number; reason: string }): never {
  const { PATH } = toolEnvironment()
  const perl = PATH.split(':')
    .map((place) => join(place, 'perl'))
    .find((path) => existsSync(path))
  if (failed.count >= maxAttempts || perl === undefined)
    throw new P2pfsError(
      'conflict',
      `cannot take over from p2pfs (pid ${owner.pid}): ${failed.reason || 'perl is missing'}; ` +
        'p2pfs daemon --stop-mounts ends it and all mounts',
      { pid: owner.pid },
    )
  // The lock is the second: the program looks whether it is the one.
  const names = (['fuse', 'lock', 'control', 'callers'] satisfies DescriptorName[]).filter(
    (name) => owner.descriptors[name] !== undefined,
  )
  const numbers = names.map((name) => owner.descriptors[name]).join(',')
  const command = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  return process.execve!(
    perl,
    [perl, '-e', program, String(owner.pid), numbers, lockFile, String(failed.count + 1), ...command],
    { ...process.env, ...listenVariables(names, process.pid) },
  )
}
