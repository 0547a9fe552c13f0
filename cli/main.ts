import { reportFailure, usageExit } from './failure.ts'
import { printHelp, printLines, printNote } from './output.ts'

/** A command's module. It is loaded only when it is called, for a short start. */
interface Command {
  run: (argv: string[]) => Promise<number>
}

const commands: Record<string, { summary: string; load: () => Promise<Command> }> = {
  daemon: { summary: 'run the p2pfs node of this host', load: async () => await import('./daemon.ts') },
  keygen: { summary: 'make the key of a region', load: async () => await import('./keygen.ts') },
  seed: {
    summary: 'place all of an image, on this host or on others, before it is needed',
    load: async () => await import('./seed.ts'),
  },
  seeds: { summary: 'list or cancel orders of seed in the region', load: async () => await import('./seeds.ts') },
  mount: {
    summary: 'mount the root filesystem of an image, as a drive or as a tree',
    load: async () => await import('./mount.ts'),
  },
  reset: { summary: 'give a mount a fresh scratch drive or upper layer', load: async () => await import('./reset.ts') },
  umount: { summary: 'end a mount', load: async () => await import('./umount.ts') },
  import: {
    summary: 'make an image from a directory, a tar file or an OCI layout',
    load: async () => await import('./import.ts'),
  },
  push: {
    summary: 'put a raw image into a registry, for other regions',
    load: async () => await import('./push.ts'),
  },
  export: {
    summary: 'write the complete block image of an image to a file',
    load: async () => await import('./export.ts'),
  },
  inspect: {
    summary: 'show layers, files and chunks of an image, and what it shares',
    load: async () => await import('./inspect.ts'),
  },
  verify: {
    summary: 'rebuild an image from its layers and compare the result with what is in use',
    load: async () => await import('./verify.ts'),
  },
  images: {
    summary: 'list the images of this host, and what they take',
    load: async () => await import('./images.ts'),
  },
  rm: { summary: 'remove an image from this host', load: async () => await import('./rm.ts') },
  pin: { summary: 'keep an image from eviction', load: async () => await import('./pin.ts') },
  unpin: { summary: 'let a pinned image be evicted again', load: async () => await import('./unpin.ts') },
  gc: { summary: 'remove what no image of this host needs, now', load: async () => await import('./gc.ts') },
  limits: {
    summary: 'show or change limits on bandwidth, while the daemon runs',
    load: async () => await import('./limits.ts'),
  },
  status: {
    summary: 'show the region, peers, images, mounts, and where data came from',
    load: async () => await import('./status.ts'),
  },
}

function help(): string {
  const rows = Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(9)}${summary}`)
  return `p2pfs mounts the root filesystem of an OCI image in milliseconds. Its blocks come from peers, then from
the registry.

Usage: p2pfs COMMAND [OPTION...]

${rows.join('\n')}

p2pfs COMMAND --help explains a command. Exit status: 0 success, 1 failure, 2 wrong command line.
`
}

async function main([name, ...argv]: string[]): Promise<number> {
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    printHelp(help())
    return name === undefined ? usageExit : 0
  }
  if (name === '--version') {
    const { default: manifest } = (await import('../package.json', { with: { type: 'json' } })) as {
      default: { version: string }
    }
    printLines([`p2pfs ${manifest.version}`])
    return 0
  }
  const command = commands[name]
  if (command === undefined) {
    printNote(`no such command: ${name}; p2pfs --help lists all commands`)
    return usageExit
  }
  try {
    return await (await command.load()).run(argv)
  } catch (error) {
    return reportFailure(error, argv.includes('--json'))
  }
}

process.exitCode = await main(process.argv.slice(2))
