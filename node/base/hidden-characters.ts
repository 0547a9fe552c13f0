/**
 * Characters that do something to a terminal, or to how a text is shown, instead of being seen: control characters (C0,
 * DEL, C1), format characters (direction of writing, zero width, tags), separators of lines and paragraphs, halves of
 * surrogate pairs. General categories of Unicode.
 */
const hidden = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/** A text for a person: what would not be seen is written out, as `\u{1b}`, newlines included. */
export function showHidden(text: string): string {
  return text.replace(hidden, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`)
}

/** JSON, on one line, that means the same, and has nothing in it that would not be seen. */
export function escapeJson(json: string): string {
  return json.replace(hidden, (character) =>
    Array.from({ length: character.length }, (_, i) => unitEscape(character.charCodeAt(i))).join(''),
  )
}

/** The beginning of a text that is longer than `maxLength`, and how much there is more. */
export function clip(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text
  return `${text.slice(0, maxLength)}\u2026 (${text.length - maxLength} more)`
}

function unitEscape(unit: number): string {
  return `\\u${unit.toString(16).padStart(4, '0')}`
}
