import { Fields } from '../../protocol/cbor.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { parseImageName, type ImageName } from '../../protocol/image-record.ts'
import { origins, resolutions, type Origin, type Resolution } from '../model/image.ts'
import { maxOwnerId, type Owner } from '../model/owner.ts'

/** A directory that a rootfs is mounted on, and how. */
export interface MountRecord extends ImageName {
  /** Unique to this mount. */
  id: string
  /** The directory as the user spelt it, absolute. */
  directory: string
  /**
   * Which mount it is, as the placement tells mounts apart, whatever the directory is called; undefined until it
   * stands.
   */
  identity?: string
  rootfsDigest: Digest
  manifestDigest: Digest
  /** The origin of the rootfs manifest, and who said that the reference stands for it, at the time of the mount. */
  origin: Origin
  resolution: Resolution
  /** `drive`: the image file, for a VM. `tree`: its files. */
  as: 'drive' | 'tree'
  writable: boolean
  limitBytes?: number
  scratchBytes?: number
  /** Drives only: who may open the image file besides root, and has the scratch drive. */
  owner?: Owner
  /** Trees only: whether others than root get all of the image where they can enter the directory. */
  allowOthers?: boolean
  /** Whether it was made with credentials of its caller, which only the daemon that made it had. */
  hadCredentials?: true
  mountedAt: string
}

/** The stored form: JSON. */
export function encodeMountRecord(record: MountRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record))
}

/** Ignores fields that it does not know. @throws invalid */
export function parseMountRecord(bytes: Uint8Array): MountRecord {
  const fields = new Fields(parseJson(bytes), 'mount record')
  const identity = optional(fields, 'identity', () => fields.text('identity'))
  const limitBytes = optional(fields, 'limitBytes', () => fields.unsigned('limitBytes'))
  const scratchBytes = optional(fields, 'scratchBytes', () => fields.unsigned('scratchBytes'))
  const owner = optional(fields, 'owner', () =>
    parseOwnerFields(new Fields(fields.get('owner'), 'mount record: owner')),
  )
  const allowOthers = optional(fields, 'allowOthers', () => oneOf([true, false], fields, 'allowOthers'))
  const hadCredentials = optional(fields, 'hadCredentials', () => oneOf([true] as const, fields, 'hadCredentials'))
  return {
    ...parseImageName(fields),
    id: parseId(fields.text('id')),
    directory: fields.text('directory'),
    ...(identity === undefined ? {} : { identity }),
    rootfsDigest: fields.digest('rootfsDigest'),
    manifestDigest: fields.digest('manifestDigest'),
    origin: oneOf(origins, fields, 'origin'),
    resolution: oneOf(resolutions, fields, 'resolution'),
    as: oneOf(['drive', 'tree'], fields, 'as'),
    writable: oneOf([true, false], fields, 'writable'),
    ...(limitBytes === undefined ? {} : { limitBytes }),
    ...(scratchBytes === undefined ? {} : { scratchBytes }),
    ...(owner === undefined ? {} : { owner }),
    ...(allowOthers === undefined ? {} : { allowOthers }),
    ...(hadCredentials === undefined ? {} : { hadCredentials }),
    mountedAt: fields.text('mountedAt'),
  }
}

function parseOwnerFields(fields: Fields): Owner {
  return { uid: fields.unsigned('uid', maxOwnerId), gid: fields.unsigned('gid', maxOwnerId) }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString()) as unknown
  } catch (cause) {
    throw new P2pfsError('invalid', `mount record: ${(cause as Error).message}`, { cause })
  }
}

/** The id names directories below the state directory. */
function parseId(id: string): string {
  if (!/^[\w-]{1,64}$/.test(id)) throw new P2pfsError('invalid', 'mount record: id is not a name')
  return id
}

function optional<T>(fields: Fields, key: string, parse: () => T): T | undefined {
  return fields.get(key) === undefined ? undefined : parse()
}

function oneOf<T>(values: readonly T[], fields: Fields, key: string): T {
  const value = values.find((candidate) => candidate === fields.get(key))
  if (value === undefined) throw new P2pfsError('invalid', `mount record: ${key} is not one of ${values.join(', ')}`)
  return value
}
