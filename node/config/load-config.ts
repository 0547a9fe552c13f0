import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { withListen } from './listen.ts'
import type { Option } from './option.ts'
import { flagOf, optionNames, options, variableOf, type Config, type OptionName } from './options.ts'
import { parseValue } from './parse-value.ts'

/**
 * Reads the configuration. A flag wins over the environment, which wins over the file, which wins over the fallback.
 * @param file configuration file to read if neither `--config` nor `P2PFS_CONFIG` names one; it may be absent
 * @throws invalid for an unknown or malformed option; the message names the option and where it was given, and the detail
 * `isStored` says that it does not stand on the command line
 */
export function loadConfig(
  argv: readonly string[],
  environment: NodeJS.ProcessEnv,
  file = '/etc/p2pfs/config.json',
): Config {
  const flags = parseFlags(argv)
  const fileName = flags['config']?.[0] ?? environment['P2PFS_CONFIG']
  const stored = asStored(() => readFile(fileName ?? file, fileName !== undefined))
  const config: Record<string, unknown> = {}
  for (const name of optionNames) {
    const flag = flags[flagOf(name)]
    const variable = environment[variableOf(name)]
    if (flag !== undefined) config[name] = parseValue(name, flag.map(String), `--${flagOf(name)}`)
    else if (variable !== undefined && variable !== '')
      config[name] = asStored(() => parseValue(name, [variable], variableOf(name)))
    else if (stored[name] !== undefined)
      config[name] = asStored(() =>
        parseValue(name, [stored[name]].flat().map(String), `${name} in ${fileName ?? file}`),
      )
    else config[name] = options[name].fallback
  }
  return withListen(config as Config)
}

/** Marks the errors of what stands in a file or in the environment. */
function asStored<T>(read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!isP2pfsError(cause)) throw cause
    throw new P2pfsError(cause.code, cause.message, { cause, isStored: true })
  }
}

function isFlag(name: string): boolean {
  return name in options && options[name as OptionName].type === 'flag'
}

function parseFlags(argv: readonly string[]): Record<string, string[] | undefined> {
  const declared = Object.fromEntries(
    [...optionNames, 'config'].map((name) => [
      flagOf(name),
      { type: isFlag(name) ? ('boolean' as const) : ('string' as const), multiple: true },
    ]),
  )
  try {
    return parseArgs({ args: [...argv], options: declared, allowPositionals: false }).values as Record<string, string[]>
  } catch (cause) {
    throw new P2pfsError('invalid', `${(cause as Error).message.split('. ')[0]}; see p2pfs daemon --help`, { cause })
  }
}

function readFile(path: string, required: boolean): Record<string, unknown> {
  let source: string
  try {
    source = readFileSync(path, 'utf8')
  } catch (cause) {
    if (!required && (cause as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw new P2pfsError('invalid', `cannot read the configuration file ${path}: ${(cause as Error).message}`, {
      cause,
    })
  }
  let values: unknown
  try {
    values = JSON.parse(source)
  } catch (cause) {
    throw new P2pfsError('invalid', `the configuration file ${path} is not JSON: ${(cause as Error).message}`, {
      cause,
    })
  }
  if (typeof values !== 'object' || values === null || Array.isArray(values)) {
    throw new P2pfsError('invalid', `the configuration file ${path} is not a JSON object`)
  }
  const unknown = Object.keys(values).find((key) => !(key in options))
  if (unknown !== undefined) {
    const shown = optionNames.filter((name) => (options[name] as Option<unknown>).isHidden !== true)
    throw new P2pfsError(
      'invalid',
      `the configuration file ${path} has an unknown option: ${unknown}; the options are ${shown.join(', ')}`,
    )
  }
  return values as Record<string, unknown>
}
