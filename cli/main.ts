import { commands } from './commands.ts'
import { reportFailure, usageExit } from './failure.ts'
import { endWithReader, printHelp, printLines, printNote } from './output.ts'

function help(): string {
  const rows = Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(12)}${summary}`)
  return `p2pfs mounts the root filesystem of an OCI image in milliseconds. Its blocks come from peers, then from
the registry.

Usage: p2pfs COMMAND [OPTION...]

${rows.join('\n')}

p2pfs COMMAND --help explains a command. Exit status: 0 success, 1 failure, 2 wrong command line.
`
}

async function main([name, ...argv]: string[]): Promise<number> {
  if (name === 'help' && argv[0] !== undefined) return await main([argv[0], '--help'])
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
    if (argv.includes('--help') || argv.includes('-h')) {
      const [{ describe }, { helpOf }] = await Promise.all([import('./described-commands.ts'), import('./help.ts')])
      printHelp(helpOf(await describe(command)))
      return 0
    }
    return await (await command.load()).run(argv, commands)
  } catch (error) {
    return reportFailure(error, argv.includes('--json'))
  }
}

endWithReader()
process.exitCode = await main(process.argv.slice(2))
