const help = (
  options: string,
): string => `Runs the p2pfs node of this host: a supervisor that owns the mounts, and a daemon that it restarts after
a crash.

Usage: p2pfs daemon [OPTION...]

${options}
  --help
      show this help

Each option can also be set by an environment variable: P2PFS_STATE_DIR for --state-dir. Logs are JSON lines on stderr.
SIGTERM ends the daemon and all its mounts. SIGHUP replaces the daemon; mounts stay.
`

export async function run(argv: string[]): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    const { describeOptions } = await import('../node/config.ts')
    process.stdout.write(help(describeOptions()))
    return 0
  }
  const { supervise } = await import('../node/main.ts')
  return await supervise(argv)
}
