import { readFile } from 'node:fs/promises'
import { P2pfsError } from '../../protocol/errors.ts'

/** The largest group id: the one after it stands for "leave it as it is" in chown(2). */
const maxGroupId = 2 ** 32 - 2

/**
 * The id of a group.
 * @param group its number, or its name in /etc/group
 * @throws invalid if there is no such group
 */
export async function groupId(group: string, groupFile = '/etc/group'): Promise<number> {
  if (/^\d{1,10}$/.test(group) && Number(group) <= maxGroupId) return Number(group)
  // NAME:PASSWORD:ID:MEMBERS, group(5).
  const entries = (await readFile(groupFile, 'utf8')).split('\n').map((line) => line.split(':'))
  const id = entries.find(([name]) => name === group)?.[2]
  if (group === '' || id === undefined || !/^\d{1,10}$/.test(id))
    throw new P2pfsError('invalid', `${groupFile} has no group ${group}: make it with groupadd, or give its number`, {
      group,
    })
  return Number(id)
}
