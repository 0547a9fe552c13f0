import { parseArgs } from 'node:util'
import { UsageError } from './failure.ts'

/** Where the daemon listens unless told otherwise. */
const defaultControl = '/run/p2pfs/p2pfs.sock'

export interface CommonArguments {
  positionals: string[]
  control: string
  json: boolean
  platform: string | undefined
}

/** Flags that all commands which talk to the daemon have, for their help. */
export const commonHelp = `  --control SOCKET  the daemon's control socket [P2PFS_CONTROL, else ${defaultControl}]
  --json            print one JSON object, errors too
  --help            show this`

export const platformHelp = "  --platform OS/ARCH  which image of a multi-platform index [the daemon's]"

/**
 * Parses the flags that commands share.
 * @param names of the positional arguments, all required
 * @returns undefined where help was asked for and shown
 * @throws UsageError
 */
export function parseCommon(argv: string[], help: string, names: string[]): CommonArguments | undefined {
  const { values, positionals } = parse(argv)
  if (values.platform !== undefined && !help.includes(platformHelp)) throw new UsageError('no such option here: --platform; see --help')
  if (values.help === true) {
    process.stdout.write(help)
    return undefined
  }
  if (positionals.length !== names.length) {
    throw new UsageError(`expected ${names.join(' ') || 'no arguments'}, got ${positionals.length} arguments; see --help`)
  }
  return {
    positionals,
    control: values.control ?? process.env['P2PFS_CONTROL'] ?? defaultControl,
    json: values.json === true,
    platform: values.platform,
  }
}

function parse(argv: string[]): {
  values: { control?: string | undefined; json?: boolean | undefined; help?: boolean | undefined; platform?: string | undefined }
  positionals: string[]
} {
  try {
    return parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        control: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        platform: { type: 'string' },
      },
    })
  } catch (error) {
    throw new UsageError(`${(error as Error).message.split('. ')[0]}; see --help`)
  }
}

/** Paths are the caller's, not the daemon's: `oci:DIR` is made absolute here. */
export function absoluteImage(image: string, absolute: (path: string) => string): string {
  return image.startsWith('oci:') && !image.startsWith('oci:/') ? `oci:${absolute(image.slice(4))}` : image
}
