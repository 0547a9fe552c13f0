import { resolve } from 'node:path'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { parseByteSize } from '../base/byte-size.ts'
import { parseDuration } from '../base/duration.ts'
import type { Option } from './option.ts'
import { options, type OptionName } from './options.ts'

/** The longest duration (s): one day. Node's timers end at 24 days. */
const maxDurationSeconds = 86_400
/** The largest count, of six digits. */
const maxCount = 999_999

/**
 * Parses the value of an option.
 * @param given texts of one source, each as often as it was given; the last one counts, and all of a list do
 * @param where the source, for the message of an error
 * @throws invalid for a value that the option does not take
 */
export function parseValue(
  name: OptionName,
  given: readonly string[],
  where: string,
): boolean | string | number | string[] {
  const option: Option<unknown> = options[name]
  if (option.type === 'list') {
    const items = given
      .flatMap((part) => part.split(','))
      .map((part) => part.trim())
      .filter((part) => part !== '')
    for (const item of items) check(option, item, where)
    return items
  }
  const value = given.at(-1) ?? ''
  if (option.type === 'flag') {
    if (value !== 'true' && value !== 'false')
      throw new P2pfsError('invalid', `${where} is ${value}; it takes true or false`)
    return value === 'true'
  }
  if (value === '') throw new P2pfsError('invalid', `${where} is empty; it takes ${option.value}`)
  check(option, value, where)
  if (option.type === 'path') return resolve(value)
  if (option.choices !== undefined && !option.choices.includes(value)) {
    throw new P2pfsError('invalid', `${where} is ${value}; it takes one of ${option.choices.join(', ')}`)
  }
  if (option.type === 'size') {
    const bytes = parseByteSize(value)
    if (bytes === undefined || bytes === 0)
      throw new P2pfsError('invalid', `${where} is ${value}; it takes a size such as 512MiB or 256GiB, 1B or more`)
    return bytes
  }
  if (option.type === 'duration') {
    const seconds = parseDuration(value)
    const isTooShort = seconds === 0 && option.mayBeZero !== true
    const least = option.mayBeZero === true ? 'from 0s' : 'more than 0s'
    if (seconds === undefined || isTooShort || seconds > maxDurationSeconds)
      throw new P2pfsError(
        'invalid',
        `${where} is ${value}; it takes a time such as 60s or 2m, ${least} and at most one day`,
      )
    return seconds
  }
  if (option.type !== 'count') return option.normalize?.(value) ?? value
  const { max = maxCount } = option
  if (!/^[1-9][0-9]{0,5}$/.test(value) || Number(value) > max)
    throw new P2pfsError('invalid', `${where} is ${value}; it takes a whole number from 1 to ${max}`)
  return Number(value)
}

/** @throws invalid */
function check({ check: checkItem }: Option<unknown>, item: string, where: string): void {
  try {
    checkItem?.(item)
  } catch (cause) {
    if (!isP2pfsError(cause, 'invalid')) throw cause
    throw new P2pfsError('invalid', `${where}: ${cause.message}`, { cause })
  }
}
