import { isP2pfsError } from '../protocol/errors.ts'
import type { RequestBody } from '../node/control/requests.ts'
import { UsageError } from './failure.ts'

/** Named here, because loading the module that reads formats takes time; a test compares. */
export const formats: readonly string[] = ['ext4', 'erofs', 'raw']

/** The option of commands that choose an image of an index. */
export const platformOption = {
  platform: {
    value: 'OS/ARCH',
    help: 'platform to choose from a multi-platform image',
    fallback: "the daemon's --platform",
  },
} as const

/** Options of the commands that name an image. @param fallback the format that they mean without `--format` */
export const imageOptions = (fallback: string) =>
  ({
    ...platformOption,
    format: { value: 'FORMAT', help: `filesystem of the image: ${formats.join(', ')}`, fallback, choices: formats },
  }) as const

/** Options of the commands that name images of this host. @param all what they mean without them */
export const hereOptions = (all: string) =>
  ({
    platform: { value: 'OS/ARCH', help: 'this platform only', fallback: all },
    format: { value: 'FORMAT', help: 'this format only', fallback: all, choices: formats },
  }) as const

/** The argument of the commands that name an image. */
export const imageArgument = {
  IMAGE: {
    help:
      'a name as in Docker (debian:12, host:5000/app@sha256:...), oci:DIR[:TAG] for an OCI layout, ' +
      'or local:NAME for an image made by p2pfs import',
  },
} as const

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
  return {
    image: absoluteImage(image, absolute),
    ...(platform === undefined ? {} : { platform }),
    ...(format === undefined ? {} : { format }),
  }
}
