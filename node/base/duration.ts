const unitSeconds: Record<string, number> = { ms: 0.001, s: 1, m: 60, min: 60, h: 3600 }

/** `90`, `90s`, `1.5m`, `500ms`: seconds; undefined for what is none. */
export function parseDuration(text: string): number | undefined {
  const [, digits, unit = 's'] = /^(\d+(?:\.\d+)?)\s?(ms|s|m|min|h)?$/.exec(text.trim()) ?? []
  return digits === undefined ? undefined : Number(digits) * unitSeconds[unit]!
}
