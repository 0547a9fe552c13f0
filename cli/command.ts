import { parseArgs } from 'node:util'
import { UsageError } from './failure.ts'

/** One option of a command. With `value` it takes a text, without it is a flag. */
export interface OptionDescription {
  /** Placeholder for the text in the help. */
  value?: string
  help: string
  /** The default, in words for the help. */
  fallback?: string
  /** The only texts that it takes. */
  choices?: readonly string[]
  completes?: Completes
}

/** The kind of names that a shell offers for an argument. */
export type Completes = 'file' | 'directory'

export interface PositionalDescription {
  help?: string
  isOptional?: boolean
  completes?: Completes
}

export type OptionDescriptions = Record<string, OptionDescription>

/**
 * All that is to be said of a command but its summary, which stands in `commands.ts`: parsing, `--help`, completion and
 * the manual come from it. Texts are paragraphs; one that is indented is shown as it is.
 */
export interface CommandDescription<Options extends OptionDescriptions = OptionDescriptions> {
  name: string
  /** The arguments after the name, without the options; one text for each form of the command. */
  usage: readonly string[]
  text: string
  /** By their names, in order. */
  positionals: Readonly<Record<string, PositionalDescription>>
  options: Options
  /** Stands after the options. */
  notes?: string
  /** Words that may stand for the first argument, for completion. */
  words?: readonly string[]
  /** It does not speak to a daemon, so it takes no `--control`. */
  isLocal?: boolean
}

/** A command's module. It is loaded only when it is called, for a short start. */
export interface CommandModule {
  /** @param commands all of them, for what speaks of all */
  run: (argv: string[], commands: Commands) => Promise<number>
  command: CommandDescription
  /** Options that stand in no table of the command line. */
  moreOptions?: () => Promise<CommandDescription['options']>
}

/** By their names. */
export type Commands = Readonly<Record<string, Command>>

export interface Command {
  summary: string
  load: () => Promise<CommandModule>
}

/** Texts and flags that were given. */
export type Values<Options extends OptionDescriptions> = {
  [Name in keyof Options]?: Options[Name] extends { value: string } ? string : boolean
}

export interface Arguments<Options extends OptionDescriptions = OptionDescriptions> {
  positionals: string[]
  control: string
  json: boolean
  values: Values<Options>
}

/** The daemon's default control socket. */
export const defaultControl = '/run/p2pfs/p2pfs.sock'

const controlOption = {
  control: {
    value: 'SOCKET',
    help: "the daemon's control socket",
    fallback: `P2PFS_CONTROL, or ${defaultControl}`,
    completes: 'file',
  },
} as const
const commonOptions = {
  json: { help: 'print one JSON object, also for errors' },
  help: { help: 'show this help' },
} as const

/** Lets a description be written with its options' types kept. */
export function describeCommand<const Options extends OptionDescriptions>(
  description: CommandDescription<Options>,
): CommandDescription<Options> {
  return description
}

/** The options that a command shares with others. */
export function sharedOptions({ isLocal = false }: Pick<CommandDescription, 'isLocal'>): OptionDescriptions {
  return { ...(!isLocal && controlOption), ...commonOptions }
}

/**
 * Parses a command line; that of `--help` comes to no command.
 * @param names the positional arguments that this form takes, where it is not the one described
 * @throws UsageError
 */
export function parseCommand<Options extends OptionDescriptions>(
  argv: readonly string[],
  command: CommandDescription<Options>,
  names = Object.keys(command.positionals),
): Arguments<Options> {
  const { values, positionals } = parse(argv, { ...command.options, ...sharedOptions(command) })
  const { control, json, ...rest } = values
  checkCount(positionals, names, command.positionals)
  for (const [index, text] of positionals.entries()) if (text === '') throw new UsageError(`${names[index]!} is empty`)
  for (const [name, value] of Object.entries(values)) checkValue(name, value, command.options[name])
  return {
    positionals,
    control: typeof control === 'string' ? control : (process.env['P2PFS_CONTROL'] ?? defaultControl),
    json: json === true,
    values: rest as Values<Options>,
  }
}

function checkCount(
  positionals: readonly string[],
  names: readonly string[],
  described: CommandDescription['positionals'],
): void {
  const required = names.filter((name) => described[name]?.isOptional !== true)
  if (positionals.length >= required.length && positionals.length <= names.length) return
  const shown = names.map((name) => (required.includes(name) ? name : `[${name}]`)).join(' ') || 'no arguments'
  const got = positionals.length === 1 ? '1 argument' : `${positionals.length} arguments`
  throw new UsageError(`expected ${shown}, got ${got}; see --help`)
}

function checkValue(name: string, value: unknown, option: OptionDescription | undefined): void {
  if (value === '') throw new UsageError(`--${name} is empty`)
  const choices = option?.choices
  if (choices === undefined || typeof value !== 'string' || choices.includes(value)) return
  throw new UsageError(`--${name} takes ${choices.slice(0, -1).join(', ')} or ${choices.at(-1)!}, not ${value}`)
}

function parse(
  argv: readonly string[],
  options: OptionDescriptions,
): { values: Record<string, string | boolean | undefined>; positionals: string[] } {
  const declared = Object.fromEntries(
    Object.entries(options).map(([name, { value }]) => [
      name,
      {
        type: value === undefined ? ('boolean' as const) : ('string' as const),
        ...(name === 'help' && { short: 'h' }),
      },
    ]),
  )
  try {
    return parseArgs({ args: [...argv], allowPositionals: true, options: declared })
  } catch (error) {
    throw new UsageError(`${(error as Error).message.split('. ')[0]}; see --help`)
  }
}
