import { arch } from 'node:os'
import { parseKey } from '../../protocol/peer-key.ts'
import { normalizePlatform } from '../model/platform.ts'
import { defaultLayerLimits } from '../rootfs/layer-limits.ts'
import { duration, list, size, text } from './option.ts'

const goArchitectures: Record<string, string> = { x64: 'amd64', arm64: 'arm64', arm: 'arm/v7', ia32: '386' }

/** Images: what a tag stands for, whose word counts, and how large a layer may be. */
export const imageOptions = {
  pull: text(
    'missing|always|newer',
    'newer',
    'when a mount that does not say it asks the registry what a tag stands for. newer: where nobody in the region has asked ' +
      'within --tag-max-age, unless all of the image is on this host. missing: only where nobody in the region knows the tag',
    { choices: ['missing', 'always', 'newer'] },
  ),
  resolveBudget: duration(
    2,
    'how long such a mount waits at most for each answer of the registry, where an earlier image is known; it is mounted then. ' +
      'newer waits no longer than the registry usually takes',
  ),
  tagMaxAge: duration(
    300,
    'a tag that this host, or a member whose word counts here, has asked the registry for within this time is not asked for ' +
      'again by mounts with newer; 0s: it is',
    { mayBeZero: true },
  ),
  platform: text(
    'OS/ARCH',
    `linux/${goArchitectures[arch()] ?? arch()}`,
    'platform to choose from a multi-platform image if the command names none',
    { fallbackText: "this host's", normalize: normalizePlatform },
  ),
  trustIndexKey: list(
    'KEY',
    [],
    'peer ids (see p2pfs status) of hosts whose signatures are accepted, besides those of this host. Without this ' +
      'option, signatures of connected members are accepted, and verified later',
    { check: parseKey },
  ),
  verifyBelieved: text(
    'on|off',
    'on',
    'whether to verify images that are believed on the word of members, in the background: about three hosts of a region ' +
      'read all layers of each such image, at 8 MiB/s, some minutes after they first have it',
    { choices: ['on', 'off'] },
  ),
  maxLayerSize: size(
    defaultLayerLimits.maxLayerBytes,
    'largest uncompressed layer that is imported; a larger layer is refused',
  ),
  maxLayerMetadata: size(
    defaultLayerLimits.maxMetadataBytes,
    'largest metadata of a layer or an image that is imported (names, links, attributes: about 256 bytes a file); ' +
      'an import takes five times as much memory',
    "a thirty-second of the host's memory, 64MiB to 512MiB",
  ),
} as const
