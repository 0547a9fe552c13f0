import { P2pfsError } from '../../protocol/errors.ts'

/** A platform in normal form: `linux`, `arm64`, and a variant or the empty text. */
export interface Platform {
  os: string
  architecture: string
  variant: string
}

/** Other names of architectures: containerd's platforms package, normalizeArch. */
const architectures: Readonly<Record<string, { architecture: string; variant?: string }>> = {
  i386: { architecture: '386' },
  x86_64: { architecture: 'amd64' },
  'x86-64': { architecture: 'amd64' },
  aarch64: { architecture: 'arm64' },
  armhf: { architecture: 'arm', variant: 'v7' },
  armel: { architecture: 'arm', variant: 'v6' },
}
/** The variant that a platform without one means. The normal form leaves it out, except for arm. */
const defaultVariants: Readonly<Record<string, string>> = { amd64: 'v1', arm: 'v7', arm64: 'v8' }

/** `os/architecture[/variant]` in normal form, as containerd's platforms package has it. */
export function parsePlatform(text: string): Platform {
  const [os = '', name = '', givenVariant = ''] = text.trim().toLowerCase().split('/')
  const { architecture, variant = givenVariant } = architectures[name] ?? { architecture: name }
  return {
    os: os === 'macos' ? 'darwin' : os,
    architecture,
    variant: normalVariant(architecture, variant),
  }
}

function normalVariant(architecture: string, variant: string): string {
  const full = /^\d/.test(variant) ? `v${variant}` : variant
  const short = full.replace(/\.0$/, '')
  if (architecture === 'arm') return short || defaultVariants['arm']!
  return short === defaultVariants[architecture] ? '' : short
}

/** The platform as it stands in the names of images: `linux/amd64`, `linux/arm/v7`. @throws invalid */
export function normalizePlatform(text: string): string {
  if (!/^[\w.-]+\/[\w.-]+(?:\/[\w.-]+)?$/.test(text.trim()))
    throw new P2pfsError(
      'invalid',
      `not a platform: ${JSON.stringify(text.slice(0, 100))}; it is OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64`,
    )
  const { os, architecture, variant } = parsePlatform(text)
  return [os, architecture, variant].filter((part) => part !== '').join('/')
}

/**
 * How well an image suits a host: 0 for the same platform, more for an older variant of the architecture, undefined for
 * an image that does not run there. Containerd's order: v8, v7, v6, v5; but a host takes other architectures that it
 * could run, as arm on arm64 and 386 on amd64, only where it is asked to.
 */
export function platformDistance(host: Platform, image: Platform): number | undefined {
  if (host.os !== image.os || host.architecture !== image.architecture) return undefined
  if (host.variant === image.variant) return 0
  const [newest, oldest] = [versionOf(host), versionOf(image)]
  if (newest === undefined || oldest === undefined) return undefined
  // Armv9.N includes Armv8.(N+5): Arm Architecture Reference Manual, A2.
  if (host.architecture === 'arm64' && newest.major === 9 && oldest.major === 8 && oldest.minor > newest.minor + 5)
    return undefined
  const distance = (newest.major - oldest.major) * 100 + newest.minor - oldest.minor
  return distance > 0 ? distance : undefined
}

function versionOf({ architecture, variant }: Platform): { major: number; minor: number } | undefined {
  const match = /^v(\d{1,2})(?:\.(\d{1,2}))?$/.exec(variant || (defaultVariants[architecture] ?? ''))
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2] ?? 0) }
}
