import { completesOf, type DescribedCommand } from '../described-commands.ts'

/** Options with which `compgen` offers files or directories. */
const actions = { file: '-f', directory: '-d' } as const

/** Completion for bash, to be sourced. */
export function bashCompletion(commands: readonly DescribedCommand[]): string {
  const names = commands.map(({ name }) => name).join(' ')
  return `# Completion of p2pfs for bash: source it, or put it into /etc/bash_completion.d/p2pfs
_p2pfs() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  # bash takes --as=tree apart.
  [ "$previous" != = ] || previous=\${COMP_WORDS[COMP_CWORD-2]}
  [ "$current" != = ] || current=
  local words= files=
  if [ "$COMP_CWORD" -eq 1 ]; then
    words='${names} help --help --version'
  else
    case \${COMP_WORDS[1]} in
      help) words='${names}' ;;
${commands.map(caseOf).join('\n')}
    esac
  fi
  COMPREPLY=()
  [ -z "$words" ] || mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [ -n "$files" ]; then
    compopt -o filenames 2>/dev/null
    mapfile -t -O "\${#COMPREPLY[@]}" COMPREPLY < <(compgen "$files" -- "$current")
  fi
}
complete -F _p2pfs p2pfs
`
}

function caseOf(command: DescribedCommand): string {
  const { name, options, words = [] } = command
  const values = Object.entries(options)
    .filter(([, { value }]) => value !== undefined)
    .map(([option, { choices, completes }]) => {
      const offers =
        choices !== undefined
          ? `words='${choices.join(' ')}'`
          : completes === undefined
            ? ':'
            : `files=${actions[completes]}`
      return `          --${option}) ${offers} ;;`
    })
  const flags = Object.keys(options).map((option) => `--${option}`)
  const completes = completesOf(command)
  const offered = completes === undefined ? `words='${words.join(' ')}'` : `files=${actions[completes]}`
  return `      ${name})
        case $previous in
${[...values, `          *) case $current in -*) words='${flags.join(' ')}' ;; *) ${offered} ;; esac ;;`].join('\n')}
        esac
        ;;`
}
