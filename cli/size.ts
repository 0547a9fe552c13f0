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

/** `10GiB`, `512M`, `1.5g`, `1048576`: powers of 1024, in bytes. @throws UsageError */
export function parseSize(text: string, flag: string): number {
  const [, number = '', unit = ''] = /^([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:i?B)?$/i.exec(text) ?? []
  const bytes = Math.round(Number(number) * 1024 ** ' KMGT'.indexOf(unit.toUpperCase() || ' '))
  if (number === '' || !Number.isSafeInteger(bytes) || bytes <= 0) throw new UsageError(`${flag} takes a size as 512MiB or 10GiB, not ${JSON.stringify(text)}`)
  return bytes
}
