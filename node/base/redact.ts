/** Replaces a secret. */
export const redacted = '[redacted]'

/** Names of fields, options and variables whose values are secrets, whatever stands around them. */
const secretName = '[\\w.-]*(?:password|passwd|passphrase|secret|token|credential|private_?key|api_?key|auth)[\\w.-]*'

/** A field of JSON with a text. */
const jsonPair = new RegExp(`("${secretName}"\\s*:\\s*)"(?:[^"\\\\]|\\\\.)*"`, 'gi')
/** The same within a text of JSON, at any depth: its quotes have as many backslashes as the first one. */
const nestedPair = new RegExp(`(?<!\\\\)(\\\\+")(${secretName})\\1(\\s*:\\s*)\\1[^]*?(?<!\\\\)\\1`, 'gi')
/** `NAME=value` of an environment, a URL's query or a logfmt line. */
const assignment = new RegExp(`\\b(${secretName})=(?:"[^"]*"|'[^']*'|[^\\s&"',;]+)`, 'gi')
/** `user:password@` of a URL; a user alone may be a token. */
const userInfo = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@"'<>]+@/gi
/** RFC 9110, section 11.4, and `Authorization: TOKEN` without a scheme. */
const scheme = /\b(bearer|basic|negotiate)\s+[\w~+/.=:-]{6,}/gi
const header =
  /\b((?:proxy-)?authorization|cookie|set-cookie|x-[\w-]*(?:token|key|auth)[\w-]*)(\s*[:=]\s*)[^\r\n"\\]+/gi
/** Keys of regions and guests, JSON Web Tokens, tokens of registries, and PEM. */
const shapes = [
  /p2pfs-region-key-\d+:[\w-]+/g,
  /\beyJ[\w-]+\.[\w-]+\.[\w-]*/g,
  /\b(?:gh[pousr]_|github_pat_|glpat-|dckr_pat_|AKIA)[\w-]{10,}/g,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g,
]

/**
 * A text without what may be a secret in it: credentials of URLs, headers and JSON, keys and tokens by name or by shape.
 * Too much is taken rather than too little.
 */
export function redact(text: string): string {
  const named = text
    .replaceAll(shapes[3]!, redacted)
    .replaceAll(nestedPair, `$1$2$1$3$1${redacted}$1`)
    .replaceAll(jsonPair, `$1"${redacted}"`)
    .replaceAll(header, `$1$2${redacted}`)
    .replaceAll(assignment, `$1=${redacted}`)
    .replaceAll(userInfo, `$1${redacted}@`)
    .replaceAll(scheme, `$1 ${redacted}`)
  return shapes.reduce((clean, shape) => clean.replaceAll(shape, redacted), named)
}

/** The same for a JSON value: its texts, and whatever has the name of a secret. */
export function redactValue(value: unknown): unknown {
  if (typeof value === 'string') return redact(value)
  if (Array.isArray(value)) return value.map(redactValue)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => [
      name,
      typeof field === 'string' && new RegExp(`^${secretName}$`, 'i').test(name) ? redacted : redactValue(field),
    ]),
  )
}
