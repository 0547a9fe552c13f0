import type { Completes, OptionDescription } from '../command.ts'
import { shorten, type DescribedCommand } from '../described-commands.ts'

/** Functions with which `_arguments` offers files or directories. */
const actions: Record<Completes, string> = { file: '_files', directory: '_files -/' }
/** Offers nothing. With no action at all, zsh would not insert an option that is the only one to match. */
const nothing = '{true}'

/** Completion for zsh, a file `_p2pfs` in a directory of `$fpath`, or to be sourced after `compinit`. */
export function zshCompletion(commands: readonly DescribedCommand[]): string {
  const list = commands.map(({ name, summary }) => `    ${quote(`${name}:${summary.replaceAll(':', '\\:')}`)}`)
  return `#compdef p2pfs
# Completion of p2pfs for zsh: put it into a directory of $fpath as _p2pfs, or source it after compinit
_p2pfs() {
  local -a commands=(
${list.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    compadd help
    _arguments '--help[list all commands]' '--version[print the version]'
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
    help) _describe command commands ;;
${commands.map(caseOf).join('\n')}
  esac
}
if [ "$funcstack[1]" = _p2pfs ]; then _p2pfs "$@"; else compdef _p2pfs p2pfs; fi
`
}

function caseOf({ name, options, positionals, words }: DescribedCommand): string {
  const labels = Object.entries(positionals)
  const specs = [
    ...Object.entries(options).map(([option, description]) => optionSpec(option, description)),
    // Two that say what stands first are an error of _arguments.
    ...(words === undefined ? [] : [`1:${labels[0]?.[0] ?? 'command'}:(${words.join(' ')})`]),
    ...labels
      .map(
        ([label, { completes }], index) =>
          `${index + 1}:${label}:${completes === undefined ? nothing : actions[completes]}`,
      )
      .slice(words === undefined ? 0 : 1),
  ]
  return `    ${name})
      _arguments ${specs.map(quote).join(' \\\n        ')}
      ;;`
}

function optionSpec(name: string, { value, help, choices, completes }: OptionDescription): string {
  const text = shorten(help).replaceAll(/[[\]:\\]/g, (found) => `\\${found}`)
  if (value === undefined) return `--${name}[${text}]`
  const offers = choices !== undefined ? `(${choices.join(' ')})` : completes === undefined ? '' : actions[completes]
  return `--${name}=[${text}]:${value.replaceAll(/[[\]:\\]/g, (found) => `\\${found}`)}:${offers}`
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`
