import { formatByteSize } from '../base/byte-size.ts'

export interface Option<T> {
  /**
   * A `list` may be given several times or with commas; in the file it is a JSON array of strings. A `size` without a
   * unit is in bytes, a `duration` in seconds. A `flag` takes no value on the command line; elsewhere it is true or
   * false.
   */
  type: 'flag' | 'text' | 'path' | 'list' | 'count' | 'size' | 'duration'
  fallback: T
  /** Shown in the help instead of a fallback that differs from host to host. */
  fallbackText?: string
  choices?: readonly string[]
  /** Checks the value, or each item of a list. @throws invalid saying what is wrong */
  check?: (item: string) => unknown
  /** Returns the normal form of a text. @throws invalid saying what is wrong */
  normalize?: (value: string) => string
  /** Placeholder for the value in the help. */
  value: string
  meaning: string
  /** For tests: the help says nothing of it. */
  isHidden?: boolean
  /** Durations only. */
  mayBeZero?: boolean
  /** The largest value; counts only. */
  max?: number
}

export const text = (
  value: string,
  fallback: string,
  meaning: string,
  more: Partial<Option<string>> = {},
): Option<string> => ({
  type: 'text',
  value,
  fallback,
  meaning,
  ...more,
})
export const size = (fallback: number, meaning: string, fallbackText = formatByteSize(fallback)): Option<number> => ({
  type: 'size',
  value: 'SIZE',
  fallback,
  fallbackText,
  meaning,
})
export const duration = (fallback: number, meaning: string, more: Partial<Option<number>> = {}): Option<number> => ({
  type: 'duration',
  value: 'TIME',
  fallback,
  fallbackText: `${fallback}s`,
  meaning,
  ...more,
})
export const count = (fallback: number, meaning: string): Option<number> => ({
  type: 'count',
  value: 'N',
  fallback,
  meaning,
})
export const list = (
  value: string,
  fallback: readonly string[],
  meaning: string,
  more: Partial<Option<readonly string[]>> = {},
): Option<readonly string[]> => ({
  type: 'list',
  value,
  fallback,
  meaning,
  ...more,
})
