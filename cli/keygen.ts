import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { P2pfsError } from '../protocol/errors.ts'
import { formatRegionKey, regionKeyBytes } from '../protocol/region-key.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines, printNote } from './output.ts'

export const command = describeCommand({
  name: 'keygen',
  usage: ['[FILE]'],
  text: 'Makes a region key. Hosts that have it let each other in, and nobody else.',
  positionals: {
    FILE: {
      help: 'file to write, which must not exist yet; only its owner can read it. Without it, the key is printed',
      isOptional: true,
      completes: 'file',
    },
  },
  options: {},
  notes: `With --json it prints "file", or else "key". Copy the file to all hosts of the region, and start their daemons with
--region-key-file FILE.

To change the key while all hosts run, add a line with the new key to the file on each host, and send SIGHUP to
p2pfs daemon there. Then put the new line first everywhere, and SIGHUP. Then remove the old line, and SIGHUP.
A host proves the first key of its file when it connects, and lets in those that prove any.`,
  isLocal: true,
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const [file] = parsed.positionals
  const key = formatRegionKey(randomBytes(regionKeyBytes))
  if (file === undefined) {
    if (parsed.json) printJson({ key })
    else printLines([key])
    return 0
  }
  await writeKey(file, key)
  if (parsed.json) printJson({ file })
  else printNote(`region key written to ${file}; copy it to all hosts of the region`)
  return 0
}

async function writeKey(file: string, key: string): Promise<void> {
  try {
    await writeFile(file, `${key}\n`, { flag: 'wx', mode: 0o600 })
  } catch (cause) {
    const message =
      (cause as NodeJS.ErrnoException).code === 'EEXIST'
        ? `${file} exists, and is left as it is; a region cannot be entered with another key than its own`
        : `cannot write ${file}: ${(cause as Error).message}`
    throw new P2pfsError('conflict', message, { cause })
  }
}
