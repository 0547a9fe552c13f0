import { clip, escapeJson, showHidden } from '../node/base/hidden-characters.ts'

/**
 * All that commands write. Names of peers, answers of registries and configs of images are
 * others' text: none of it reaches the terminal as anything but text.
 */

/** A longer line is cut: more of an error or a list of addresses nobody reads (characters). */
const maxLineLength = 4096
/** A name that a peer has given itself, where it is shown (characters). */
const maxNameLength = 64

/** As a shell shows a program that SIGPIPE ended: 128 and the signal's number. */
const brokenPipeExit = 141

/** Ends this process without a word when nobody reads its output any more, as in `p2pfs status | head`. */
export function endWithReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(brokenPipeExit)
    printNote(`cannot write the output: ${error.message}`)
    process.exit(1)
  })
  // Texts there are for a person, who is gone; the command goes on.
  process.stderr.on('error', () => undefined)
}

/** Prints lines for a person. Control characters in a line are escaped, so it stays one line. */
export function printLines(lines: readonly string[]): void {
  process.stdout.write(lines.map((line) => `${shown(line)}\n`).join(''))
}

/** Prints one JSON object, on one line; whole, however long. */
export function printJson(value: unknown): void {
  process.stdout.write(`${escapeJson(JSON.stringify(value))}\n`)
}

/** Says something on stderr. */
export function printNote(text: string): void {
  process.stderr.write(`p2pfs: ${shown(text.replaceAll('\n', ' '))}\n`)
}

/** The same as one JSON object. */
export function printJsonNote(value: unknown): void {
  process.stderr.write(`${escapeJson(JSON.stringify(value))}\n`)
}

/** Rewrites the last line of a terminal on stderr, cut to its width; without a text it is emptied. */
export function printProgressLine(text: string | undefined): void {
  const columns = process.stderr.columns || 80
  process.stderr.write(`\r\x1b[K${text === undefined ? '' : shown(text).slice(0, columns - 1)}`)
}

/** Prints the stack of an error that nobody has foreseen on stderr. */
export function printStack(stack: string): void {
  process.stderr.write(
    stack
      .split('\n')
      .map((line) => `${shown(line)}\n`)
      .join(''),
  )
}

/** Prints a text of our own, as it is. */
export function printHelp(text: string): void {
  process.stdout.write(text)
}

/** A name that somebody else has chosen, short enough for a line with other things in it. */
export function shortName(name: string): string {
  return clip(name, maxNameLength)
}

function shown(line: string): string {
  return showHidden(clip(line.trimEnd(), maxLineLength))
}
