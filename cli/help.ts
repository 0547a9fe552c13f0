import type { OptionDescriptions } from './command.ts'
import type { DescribedCommand } from './described-commands.ts'

/** The help is as wide as this, for terminals (columns). */
const width = 110
/** A longer flag has a line of its own (columns, with the space around it). */
const maxFlagWidth = 26

/** The text of `p2pfs COMMAND --help`. */
export function helpOf(command: DescribedCommand): string {
  const { usage, text, positionals, options, shared, notes } = command
  const own = Object.fromEntries(Object.entries(options).filter(([name]) => !(name in shared)))
  const forms = usage.map(
    (form) => `p2pfs ${[command.name, form, '[OPTION...]'].filter((part) => part !== '').join(' ')}`,
  )
  const described = Object.entries(positionals).filter(([, { help }]) => help !== undefined)
  const rows = described.map(([name, { help = '' }]) => [name, help] as const)
  return [
    paragraphs(text),
    `Usage: ${forms.join('\n       ')}`,
    ...(rows.length > 0 ? [table(rows)] : []),
    ...(Object.keys(own).length > 0 ? [table(optionRows(own))] : []),
    ...(notes === undefined ? [] : [paragraphs(notes)]),
    table(optionRows(shared)),
    '',
  ]
    .join('\n\n')
    .replace(/\n+$/, '\n')
}

/** Each flag with its placeholder, and what it means with its fallback. */
export function optionRows(options: OptionDescriptions): (readonly [string, string])[] {
  return Object.entries(options).map(([name, { value, help, fallback }]) => [
    value === undefined ? `--${name}` : `--${name} ${value}`,
    fallback === undefined ? help : `${help} [${fallback}]`,
  ])
}

function table(rows: readonly (readonly [string, string])[]): string {
  const column = Math.min(Math.max(...rows.map(([left]) => left.length + 4)), maxFlagWidth)
  return rows
    .map(([left, right]) => {
      const lines = wrap(right, width - column)
      const first = `  ${left}`
      const rest = lines.map((line) => `${' '.repeat(column)}${line}`)
      return first.length + 2 > column
        ? [first, ...rest].join('\n')
        : [first.padEnd(column) + lines[0]!, ...rest.slice(1)].join('\n')
    })
    .join('\n')
}

/** Paragraphs, wrapped; an indented one stays as it is. */
function paragraphs(text: string): string {
  return text
    .trim()
    .split(/\n\n/)
    .map((paragraph) => (isLiteral(paragraph) ? paragraph : wrap(paragraph.replaceAll('\n', ' '), width).join('\n')))
    .join('\n\n')
}

/** Whether a paragraph is shown as it is: one of its lines is indented. */
export const isLiteral = (paragraph: string): boolean => /^ {2}/m.test(paragraph)

/** Breaks a text into lines of at most `columns`. */
export function wrap(text: string, columns: number): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1)!
    if (line === '') lines[lines.length - 1] = word
    else if (line.length + 1 + word.length > columns) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines
}
