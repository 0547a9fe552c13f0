import { showHidden } from '../../node/base/hidden-characters.ts'

/** ECMA-48 and xterm: the alternate screen, the cursor, the rest of a line, the rest of the screen. */
const codes = {
  enter: '\x1b[?1049h\x1b[?25l\x1b[H\x1b[J',
  leave: '\x1b[?25h\x1b[?1049l',
  home: '\x1b[H',
  endOfLine: '\x1b[K',
  rest: '\x1b[J',
} as const

/** The part of a terminal that the screen uses. */
export interface Terminal {
  columns: number
  rows: number
  write: (text: string) => unknown
}

/** Redraws the whole screen of a terminal. The screen as it was comes back at the end. */
export class Screen {
  readonly #terminal: Terminal
  #isOpen = false

  constructor(terminal: Terminal) {
    this.#terminal = terminal
  }

  /** Lines that do not fit are cut; text of others stays text. */
  draw(lines: readonly string[]): void {
    // A terminal that does not know its size says 0.
    const columns = this.#terminal.columns || 80
    const rows = this.#terminal.rows || 24
    const shown = lines
      .slice(0, Math.max(1, rows - 1))
      .map((line) => `${showHidden(line).slice(0, columns)}${codes.endOfLine}`)
    this.#terminal.write(`${this.#isOpen ? '' : codes.enter}${codes.home}${shown.join('\r\n')}${codes.rest}`)
    this.#isOpen = true
  }

  close(): void {
    if (this.#isOpen) this.#terminal.write(codes.leave)
    this.#isOpen = false
  }
}
