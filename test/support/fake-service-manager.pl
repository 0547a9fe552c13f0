# Does what systemd does for a unit with a descriptor store: takes messages of sd_notify(3) at a socket, keeps descriptors, and
# starts the command with them, again whenever a signal has killed it. Its arguments are the socket and the command. It prints
# each message, and `started PID`.
use strict; use warnings; use Socket; use POSIX ':sys_wait_h';
my ($path, @command) = @ARGV;
$| = 1;
my $recvmsg = (POSIX::uname())[4] eq 'aarch64' ? 212 : 47;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die $!;
bind($socket, pack_sockaddr_un($path)) or die $!;
my (@names, %fds, $child);
sub start {
  $child = fork // die $!;
  if ($child == 0) {
    $ENV{NOTIFY_SOCKET} = $path;
    if (@names) {
      @ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ($$, scalar @names, join(':', @names));
      for my $i (0 .. $#names) {
        POSIX::dup2($fds{$names[$i]}, 200 + $i) // die $!;
        POSIX::close($fds{$names[$i]});
      }
      for my $i (0 .. $#names) { POSIX::dup2(200 + $i, 3 + $i) // die $!; POSIX::close(200 + $i) }
    }
    exec @command;
    die $!;
  }
  print "started $child\n";
}
# Stored descriptors stay out of the range that a child gets them in.
sub receive {
  my ($text, $control) = ("\0" x 4096, "\0" x 64);
  my $part = pack("P Q", $text, length $text);
  my $message = pack("Q L x4 P Q P Q i x4", 0, 0, $part, 1, $control, length $control, 0);
  my $length = syscall($recvmsg, fileno $socket, $message, 0);
  return if $length < 0;
  $text = substr $text, 0, $length;
  my ($size, $level, $type, $fd) = unpack("Q i i i", $control);
  if ($size == 20 && $type == 1) {
    if ($text =~ /^FDSTORE=1$/m && $text =~ /^FDNAME=(\w+)$/m) {
      if (exists $fds{$1}) { POSIX::close($fd) }
      else { POSIX::dup2($fd, 100 + @names) // die $!; POSIX::close($fd); $fds{$1} = 100 + @names; push @names, $1 }
    } else { POSIX::close($fd) }
  }
  if ($text =~ /^FDSTOREREMOVE=1$/m && $text =~ /^FDNAME=(\w+)$/m && exists $fds{$1}) {
    my $name = $1;
    POSIX::close(delete $fds{$name});
    @names = grep { $_ ne $name } @names;
  }
  $text =~ s/\n/ /g;
  print "$text\n";
}
$SIG{TERM} = sub { kill 'TERM', $child };
start();
while (1) {
  vec(my $ready = '', fileno $socket, 1) = 1;
  receive() if select($ready, undef, undef, 0.05) > 0;
  next unless waitpid($child, WNOHANG) == $child;
  if (WIFSIGNALED($?)) { start(); next }
  while (vec($ready = '', fileno $socket, 1) = 1, select($ready, undef, undef, 0) > 0) { receive() }
  print "ended ", WEXITSTATUS($?), " stored @names\n";
  exit 0;
}
