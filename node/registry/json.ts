import { P2pfsError } from '../../protocol/errors.ts'

/** An object of JSON that came from outside: each value is checked before it is used. */
export type JsonObject = Readonly<Record<string, unknown>>

/** Objects and arrays within one another; the specified formats have fewer than ten levels. */
const maxJsonDepth = 64

/** @throws invalid; the message does not quote the text, which may hold a password */
export function parseJsonObject(json: string, what: string): JsonObject {
  checkDepth(json, what)
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    throw new P2pfsError('invalid', `${what} is not JSON`)
  }
  return asObject(value, what)
}

/** @throws invalid */
export function asObject(value: unknown, what: string): JsonObject {
  if (!isObject(value)) throw new P2pfsError('invalid', `${what} is not an object`)
  return value
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The value where it is a text, else the empty text. */
export const textOrEmpty = (value: unknown): string => (typeof value === 'string' ? value : '')

/** The entries of an object whose values are texts; none where it is no object. */
export function textEntries(value: unknown): Record<string, string> {
  if (!isObject(value)) return {}
  return Object.fromEntries(
    Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  )
}

/** JSON.parse takes any depth, but writing the value again, or walking it, would overflow the stack. */
function checkDepth(json: string, what: string): void {
  let depth = 0
  for (let i = 0, isQuoted = false; i < json.length; i++) {
    const character = json[i]
    if (character === '"') isQuoted = !isQuoted
    else if (isQuoted) i += character === '\\' ? 1 : 0
    else if (character === '{' || character === '[') {
      if (++depth > maxJsonDepth)
        throw new P2pfsError('invalid', `${what} has values more than ${maxJsonDepth} levels deep`)
    } else if (character === '}' || character === ']') depth--
  }
}
