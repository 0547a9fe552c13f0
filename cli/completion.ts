import { describeCommand, parseCommand, type Commands } from './command.ts'
import { describeCommands, type DescribedCommand } from './described-commands.ts'
import { UsageError } from './failure.ts'
import { printHelp, printJson } from './output.ts'

const shells: Readonly<Record<string, () => Promise<(commands: readonly DescribedCommand[]) => string>>> = {
  bash: async () => (await import('./completion/bash.ts')).bashCompletion,
  zsh: async () => (await import('./completion/zsh.ts')).zshCompletion,
  fish: async () => (await import('./completion/fish.ts')).fishCompletion,
}

export const command = describeCommand({
  name: 'completion',
  usage: ['bash|zsh|fish'],
  text: 'Prints the completion of commands and options for a shell.',
  positionals: { SHELL: {} },
  options: {},
  notes: `Where each shell looks for it:
  p2pfs completion bash > /etc/bash_completion.d/p2pfs
  p2pfs completion zsh > /usr/local/share/zsh/site-functions/_p2pfs
  p2pfs completion fish > ~/.config/fish/completions/p2pfs.fish`,
  words: Object.keys(shells),
  isLocal: true,
})

export async function run(argv: string[], commands: Commands): Promise<number> {
  const parsed = parseCommand(argv, command)
  const [shell = ''] = parsed.positionals
  const load = shells[shell]
  if (load === undefined)
    throw new UsageError(`there is completion for ${Object.keys(shells).join(', ')}, not ${shell}`)
  const script = (await load())(await describeCommands(commands))
  if (parsed.json) printJson({ shell, script })
  else printHelp(script)
  return 0
}
