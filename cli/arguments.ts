import { parseArgs } from 'node:util'
import { UsageError } from './failure.ts'

/** Where the daemon listens unless told otherwise. */
const defaultControl = '/run/p2pfs/p2pfs.sock'

/** Options of a command besides those that all have: what `parseArgs` takes. */
type Extra = Record<string, { type: 'string' | 'boolean' }>
type Values<Options extends Extra> = {
  [Name in keyof Options]?: Options[Name]['type'] extends 'string' ? string : boolean
}

export interface CommonArguments<Options extends Extra> {
  positionals: string[]
  control: string
  json: boolean
  values: Values<Options>
}

/** Flags that all commands which talk to the daemon have, for their help. */
export const commonHelp = `  --control SOCKET  the daemon's control socket [P2PFS_CONTROL, else ${defaultControl}]
  --json            print one JSON object, errors too
  --help            show this`

/** For commands that name an image. */
export const imageOptions = { platform: { type: 'string' }, format: { type: 'string' } } as const
export const imageHelp = (
  format: string,
): string => `  --platform OS/ARCH  which image of a multi-platform index [the daemon's]
  --format FORMAT     ext4 or erofs: two filesystems over the same chunks [${format}]`
export const imageNames = `  IMAGE  as Docker writes it (debian:12, host:5000/app@sha256:...), oci:DIR[:TAG] for an OCI layout on disk,
         or local:NAME for what p2pfs import made`

/**
 * Parses the flags that commands share, and `extra`.
 * @param names of the positional arguments, all required
 * @returns undefined where help was asked for and shown
 * @throws UsageError
 */
export function parseCommon<Options extends Extra>(
  argv: string[],
  help: string,
  names: string[],
  extra: Options,
): CommonArguments<Options> | undefined {
  const { values, positionals } = parse(argv, extra)
  const { control, json, help: helpWanted, ...rest } = values
  if (helpWanted === true) {
    process.stdout.write(help)
    return undefined
  }
  if (positionals.length !== names.length) {
    throw new UsageError(
      `expected ${names.join(' ') || 'no arguments'}, got ${positionals.length} arguments; see --help`,
    )
  }
  return {
    positionals,
    control: typeof control === 'string' ? control : (process.env['P2PFS_CONTROL'] ?? defaultControl),
    json: json === true,
    values: rest as Values<Options>,
  }
}

function parse(
  argv: string[],
  extra: Extra,
): { values: Record<string, string | boolean | undefined>; positionals: string[] } {
  try {
    return parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        control: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        ...extra,
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

/** The image of a request. */
export function imageRequest(
  image: string,
  { platform, format }: { platform?: string; format?: string },
  absolute: (path: string) => string,
): { image: string; platform?: string; format?: string } {
  return {
    image: absoluteImage(image, absolute),
    ...(platform === undefined ? {} : { platform }),
    ...(format === undefined ? {} : { format }),
  }
}
