import { readFile } from 'node:fs/promises'
import { parseKey } from '../../../protocol/peer-key.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

/**
 * Reads a file of peer ids, one a line. Empty lines, and what follows `#` on a line, do not count.
 * @throws invalid where it cannot be read, or a line is no peer id
 */
export async function loadMemberList(file: string): Promise<ReadonlySet<string>> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    throw new P2pfsError('invalid', `cannot read the list of members ${file}: ${(cause as Error).message}`, { cause })
  }
  const members = new Set<string>()
  for (const [i, line] of text.split('\n').entries()) {
    const member = line.replace(/#.*/, '').trim()
    if (member === '') continue
    try {
      members.add(parseKey(member))
    } catch (cause) {
      throw new P2pfsError('invalid', `${file}, line ${i + 1}: ${(cause as Error).message}`, { cause })
    }
  }
  return members
}
