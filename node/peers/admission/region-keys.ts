import { open } from 'node:fs/promises'
import { hkdfSync } from 'node:crypto'
import { P2pfsError } from '../../../protocol/errors.ts'
import { parseRegionKeys, regionKeyBytes } from '../../../protocol/region-key.ts'

/** Longest region key file that is read (bytes): two keys, and comments. */
const maxFileBytes = 64 * 1024
/** Permissions of others than the owner and his group. */
const othersMode = 0o007

/** Members of a region prove to each other that they know it: derived from a region key and the region's name. */
export type RegionSecret = Uint8Array

/**
 * Derives the secret of a region. Its name is a part: hosts of two regions that have the same key do not let each other
 * in, and nobody hears the name. HKDF-SHA256 (RFC 5869).
 */
export function regionSecret(key: Uint8Array, region: string): RegionSecret {
  return new Uint8Array(hkdfSync('sha256', key, '', `p2pfs region 1 ${region}`, regionKeyBytes))
}

/**
 * Derives the secret of the guests of a region: hosts of other regions, which may read its chunks. It is another one than
 * the members', also where both are derived from one key: who knows it alone cannot pose as a member.
 */
export function guestSecret(key: Uint8Array, region: string): RegionSecret {
  return new Uint8Array(hkdfSync('sha256', key, '', `p2pfs guest 1 ${region}`, regionKeyBytes))
}

/** The secret of the guests of a region without a key. */
export function openGuestSecret(region: string): RegionSecret {
  return guestSecret(new Uint8Array(regionKeyBytes), region)
}

/** The secret of a region without a key. Everybody who knows the name of the region can derive it. */
export function openRegionSecret(region: string): RegionSecret {
  return regionSecret(new Uint8Array(regionKeyBytes), region)
}

/**
 * Reads the secrets of a region key file, those of members or, by `derive`, those of guests. A host proves the first
 * one when it dials; it lets in whoever proves any.
 * @throws invalid where the file is no region key file, or where every user of the host can read it; unavailable where
 *   it cannot be read
 */
export async function loadRegionSecrets(
  file: string,
  region: string,
  { derive = regionSecret }: { derive?: (key: Uint8Array, region: string) => RegionSecret } = {},
): Promise<RegionSecret[]> {
  let text: string
  try {
    await using handle = await open(file)
    const { mode, size } = await handle.stat()
    if ((mode & othersMode) !== 0)
      throw new P2pfsError('invalid', `all users of this host can read the region key: chmod 600 ${file}`)
    if (size > maxFileBytes) throw new P2pfsError('invalid', `${file} is no region key file: it has ${size} bytes`)
    text = await handle.readFile('utf8')
  } catch (cause) {
    if (cause instanceof P2pfsError) throw cause
    throw new P2pfsError('invalid', `cannot read the region key file ${file}: ${(cause as Error).message}`, { cause })
  }
  try {
    return parseRegionKeys(text).map((key) => derive(key, region))
  } catch (cause) {
    throw new P2pfsError('invalid', `${file} is no region key file: ${(cause as Error).message}`, { cause })
  }
}
