import type { Option } from './option.ts'
import { flagOf, optionNames, options } from './options.ts'

/** An option as the help and the manual describe it; `value` is the placeholder for the value of its flag. */
export interface DescribedOption {
  value?: string
  help: string
  fallback?: string
  choices?: readonly string[]
  completes?: 'file'
}

/** All options but hidden ones, by their flags without the dashes: for the help, completion and the manual. */
export function describeOptions(): Record<string, DescribedOption> {
  const described: Record<string, DescribedOption> = {}
  for (const name of optionNames) {
    const { type, value, meaning, fallback, fallbackText, choices, isHidden }: Option<unknown> = options[name]
    if (isHidden === true) continue
    const usual = fallbackText ?? (Array.isArray(fallback) ? fallback.join(',') || 'none' : String(fallback))
    described[flagOf(name)] = {
      help: meaning,
      ...(type !== 'flag' && { value, fallback: usual }),
      ...(choices !== undefined && { choices }),
      ...((type === 'path' || value === 'FILE' || value === 'DIR') && { completes: 'file' }),
    }
  }
  described['config'] = {
    value: 'FILE',
    help: 'JSON file with these options, named in camelCase',
    fallback: '/etc/p2pfs/config.json if it exists',
    completes: 'file',
  }
  return described
}
