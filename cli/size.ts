import { parseByteSize } from '../node/base/byte-size.ts'
import type { Amount } from '../node/model/progress.ts'
import { UsageError } from './failure.ts'

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** `1536` -> `1.5 KiB`. */
export function formatSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit] ?? ''}`
}

/** `1.5 KiB in 3 chunks`. */
export function formatAmount({ bytes, chunks }: Amount): string {
  return `${formatSize(bytes)} in ${chunks} chunks`
}

/** @throws UsageError */
export function parseSize(text: string, flag: string): number {
  const bytes = parseByteSize(text)
  if (bytes === undefined || bytes === 0)
    throw new UsageError(`${flag} takes a size such as 512MiB or 10GiB, not ${JSON.stringify(text)}`)
  return bytes
}
