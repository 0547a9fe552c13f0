import { P2pfsError } from '../../protocol/errors.ts'

/** A user and a group of this host, by number, such as a jailed VMM runs as. */
export interface Owner {
  uid: number
  gid: number
}

/** The largest number of a user or group: 2^32-1 stands for none, see chown(2). */
export const maxOwnerId = 2 ** 32 - 2

/** Parses `UID:GID`. @throws invalid */
export function parseOwner(text: string): Owner {
  const [, uid = '', gid = ''] = /^(\d{1,10}):(\d{1,10})$/.exec(text) ?? []
  const owner = { uid: Number(uid), gid: Number(gid) }
  if (uid === '' || owner.uid > maxOwnerId || owner.gid > maxOwnerId)
    throw new P2pfsError('invalid', `an owner is UID:GID, two numbers such as 1000:1000, not ${JSON.stringify(text)}`)
  return owner
}
