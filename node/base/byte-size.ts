/** Powers of 1024, with the names of IEC 80000-13. */
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** `256GiB`, `1.5 MiB`, `10G`, or a plain number of bytes. @returns undefined for anything else */
export function parseByteSize(text: string): number | undefined {
  const match = /^(\d{1,16}(?:\.\d{1,3})?) ?(?:B|([KMGT])(?:iB)?)?$/.exec(text.trim())
  if (match === null) return undefined
  const bytes = Math.round(Number(match[1]) * 1024 ** units.findIndex((unit) => unit[0] === (match[2] ?? 'B')))
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** In the largest unit that leaves a whole number: what {@link parseByteSize} reads. */
export function formatByteSize(bytes: number): string {
  let unit = 0
  let value = bytes
  while (value >= 1024 && value % 1024 === 0 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${value}${units[unit]!}`
}
