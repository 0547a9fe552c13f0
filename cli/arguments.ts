import { parseArgs } from 'node:util'
import { isP2pfsError } from '../protocol/errors.ts'
import type { RequestBody } from '../node/control/requests.ts'
import { UsageError } from './failure.ts'
import { printHelp } from './output.ts'

/** The daemon's default control socket. */
const defaultControl = '/run/p2pfs/p2pfs.sock'

/** Options of one command, as `parseArgs` takes them. */
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

/** Help for the flags of every command that talks to the daemon. */
export const commonHelp = `  --control SOCKET    the daemon's control socket [P2PFS_CONTROL, or ${defaultControl}]
  --json              print one JSON object, also for errors
  --help              show this help`

/** Options of the commands that name an image. */
export const imageOptions = { platform: { type: 'string' }, format: { type: 'string' } } as const
export const imageHelp = (
  format: string,
): string => `  --platform OS/ARCH  platform to choose from a multi-platform image [the daemon's --platform]
  --format FORMAT     filesystem of the image: ${formats.join(', ')} [${format}]`
export const imageNames = `\
  IMAGE  a name as in Docker (debian:12, host:5000/app@sha256:...), oci:DIR[:TAG] for an OCI layout,
         or local:NAME for an image made by p2pfs import`

/**
 * Parses the flags that all commands share, and those of this command.
 * @param names names of the positional arguments; all are required
 * @param extra options of this command
 * @returns undefined after `--help`, which prints `help`
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
    printHelp(help)
    return undefined
  }
  if (positionals.length !== names.length) {
    const got = positionals.length === 1 ? '1 argument' : `${positionals.length} arguments`
    throw new UsageError(`expected ${names.join(' ') || 'no arguments'}, got ${got}; see --help`)
  }
  for (const [index, name] of names.entries()) if (positionals[index] === '') throw new UsageError(`${name} is empty`)
  for (const [name, value] of Object.entries(values)) if (value === '') throw new UsageError(`--${name} is empty`)
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

/** Makes the path in `oci:DIR` absolute, because the daemon has another working directory. @throws UsageError */
export function absoluteImage(image: string, absolute: (path: string) => string): string {
  if (/^oci:(?::|$)/.test(image)) throw new UsageError(`oci: is followed by a directory, as oci:DIR, in ${image}`)
  return image.startsWith('oci:') && !image.startsWith('oci:/') ? `oci:${absolute(image.slice(4))}` : image
}

/** Checks a request as the daemon does, before it is sent. @throws UsageError */
export function checkRequest<Request>(parse: (body: RequestBody) => Request, request: object): Request {
  try {
    return parse(request as RequestBody)
  } catch (error) {
    throw isP2pfsError(error, 'invalid') ? new UsageError(error.message) : error
  }
}

/** Makes the part of a request that names an image. @throws UsageError */
export function imageRequest(
  image: string,
  { platform, format }: { platform?: string; format?: string },
  absolute: (path: string) => string,
): { image: string; platform?: string; format?: string } {
  checkFormat(format)
  return {
    image: absoluteImage(image, absolute),
    ...(platform === undefined ? {} : { platform }),
    ...(format === undefined ? {} : { format }),
  }
}

/** Named here, because loading the module that reads formats takes time; a test compares. */
export const formats: readonly string[] = ['ext4', 'erofs', 'raw']

/** @throws UsageError */
export function checkFormat(format: string | undefined): void {
  if (format !== undefined && !formats.includes(format))
    throw new UsageError(`--format takes ${formats.slice(0, -1).join(', ')} or ${formats.at(-1)}, not ${format}`)
}
