import {
  sharedOptions,
  type Command,
  type CommandDescription,
  type Commands,
  type OptionDescriptions,
} from './command.ts'

/** A command with all that is to be said of it. */
export interface DescribedCommand extends CommandDescription {
  summary: string
  /** Those of its own, and after them those that it shares with others. */
  options: OptionDescriptions
  /** Those of the options that several commands have. */
  shared: OptionDescriptions
}

/** Loads a command, for what speaks of it. */
export async function describe({ summary, load }: Command): Promise<DescribedCommand> {
  const { command, moreOptions } = await load()
  const all = sharedOptions(command)
  const shared = moreOptions === undefined ? all : { help: all['help']! }
  return { ...command, summary, shared, options: { ...(await moreOptions?.()), ...command.options, ...shared } }
}

/** Loads all commands, for what speaks of all of them. */
export async function describeCommands(commands: Commands): Promise<DescribedCommand[]> {
  return await Promise.all(Object.values(commands).map(describe))
}

/** Returns the kind of names that a shell offers for the command's arguments besides options. */
export function completesOf({ positionals }: CommandDescription): 'file' | 'directory' | undefined {
  const kinds = Object.values(positionals).map(({ completes }) => completes)
  return kinds.includes('file') ? 'file' : kinds.includes('directory') ? 'directory' : undefined
}

/** A text for a list of choices: its first part, and not all of a long one (characters). */
export function shorten(help: string, maxLength = 100): string {
  const sentence = help.split(/[.;] /)[0]!
  return sentence.length <= maxLength ? sentence : `${sentence.slice(0, maxLength - 3)}...`
}
