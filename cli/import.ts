import { fstatSync } from 'node:fs'
import { resolve } from 'node:path'
import type { ImportRequest } from '../node/control/api.ts'
import { parseImportRequest } from '../node/control/requests.ts'
import { absoluteImage, checkRequest, imageOptions } from './arguments.ts'
import { describeCommand, parseCommand } from './command.ts'
import { UsageError } from './failure.ts'
import { callWithProgress, progressOption } from './progress.ts'
import { describeSeeded } from './seed.ts'

export const command = describeCommand({
  name: 'import',
  usage: ['SOURCE NAME', '--raw FILE NAME'],
  text: `Makes the image local:NAME without a registry. Every host of the region can mount it by that name.`,
  positionals: {
    SOURCE: {
      help: 'a directory (with owners, attributes and holes), a tar file (plain, gzip or zstd), or oci:DIR[:TAG]. With \
--raw: a finished disk image (ext4, XFS, a snapshot of a disk or of memory), or - for what comes from a pipe',
      completes: 'file',
    },
    NAME: {
      help: 'lower-case letters and digits, with . _ - / between them, and optionally a tag: app, team/app:v2',
    },
  },
  options: { raw: { help: 'take the file as it is' }, ...imageOptions('ext4'), ...progressOption },
  notes: `If NAME exists, it stands for the new image from now on; existing mounts keep the old one. The daemon reads SOURCE, so
it needs access to it. With --raw the image is the file, byte by byte, and is mounted as a drive; its zeros take no
room, and what it has in common with earlier versions is kept and sent once. Only hosts that have the chunks can deliver
them: seed such an image on more than one host.`,
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const [source = '', name = ''] = parsed.positionals
  const { raw = false } = parsed.values
  const path = raw && source === '-' ? standardInput() : resolve(source)
  const request: ImportRequest = checkRequest(parseImportRequest, {
    source: source.startsWith('oci:') && !raw ? absoluteImage(source, resolve) : path,
    name,
    ...parsed.values,
  })
  await callWithProgress('import', request, parsed, describeSeeded)
  return 0
}

/** The path by which the daemon opens what this process has as its input. @throws UsageError */
function standardInput(): string {
  const input = fstatSync(0)
  if (!input.isFIFO() && !input.isFile())
    throw new UsageError('--raw - reads from a pipe or a file: COMMAND | p2pfs import --raw - NAME')
  return `/proc/${process.pid}/fd/0`
}
