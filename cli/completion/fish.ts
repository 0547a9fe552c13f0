import type { Completes } from '../command.ts'
import { completesOf, shorten, type DescribedCommand } from '../described-commands.ts'

const actions: Record<Completes, string> = { file: '-r -F', directory: "-x -a '(__fish_complete_directories)'" }

/** Completion for fish, a file `p2pfs.fish` in `~/.config/fish/completions`, or to be sourced. */
export function fishCompletion(commands: readonly DescribedCommand[]): string {
  return `# Completion of p2pfs for fish: put it into ~/.config/fish/completions/p2pfs.fish, or source it
complete -c p2pfs -f
complete -c p2pfs -n __fish_use_subcommand -l help -d 'list all commands'
complete -c p2pfs -n __fish_use_subcommand -l version -d 'print the version'
complete -c p2pfs -n __fish_use_subcommand -a help -d 'explain a command'
complete -c p2pfs -n '__fish_seen_subcommand_from help' -a ${quote(commands.map(({ name }) => name).join(' '))}
${commands.map(linesOf).join('\n')}
`
}

function linesOf(command: DescribedCommand): string {
  const { name, summary, options, words } = command
  const seen = `complete -c p2pfs -n '__fish_seen_subcommand_from ${name}'`
  const completes = completesOf(command)
  return [
    `complete -c p2pfs -n __fish_use_subcommand -a ${name} -d ${quote(summary)}`,
    ...(completes === 'file' ? [`${seen} -F`] : []),
    ...(completes === 'directory' ? [`${seen} -a '(__fish_complete_directories)'`] : []),
    ...(words === undefined ? [] : [`${seen} -a ${quote(words.join(' '))}`]),
    ...Object.entries(options).map(([option, { value, help, choices, completes: offers }]) => {
      const takes =
        value === undefined
          ? ''
          : choices !== undefined
            ? ` -x -a ${quote(choices.join(' '))}`
            : ` ${offers === undefined ? '-x' : actions[offers]}`
      return `${seen} -l ${option}${takes} -d ${quote(shorten(help))}`
    }),
  ].join('\n')
}

const quote = (text: string): string => `'${text.replaceAll(/[\\']/g, (found) => `\\${found}`)}'`
