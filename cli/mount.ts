import { resolve } from 'node:path'
import type { MountRequest, MountResult } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { commonHelp, imageHelp, imageNames, imageOptions, imageRequest, parseCommon } from './arguments.ts'
import { UsageError } from './failure.ts'
import { parseSize } from './size.ts'

const help = `Mounts the rootfs of an image on DIR: as a drive, DIR/rootfs.img is the block image for a VM; as a tree, DIR has the
files, mounted by this host's kernel, for a container.

Usage: p2pfs mount IMAGE DIR [OPTION...]

${imageNames}
  DIR    an existing directory

  --as drive|tree   [drive]
  --scratch SIZE    drives: make a second, writable, empty ext4 drive of which SIZE is free; ends with the mount
  --writable        trees: an overlay takes writes; they end with the mount
  --size SIZE       writable trees: no more than this can be written [what the host's disk has]

Prints {"rootfs", "scratch", "as", "format", "digest", "sizeBytes", "origin", "config"}: the path of the image file, or the
directory of the tree; the path of the scratch drive; the filesystem; its digest; where its manifest came from; the OCI
image config. Content is fetched when it is read. An image that nobody in the region has seeded is imported first, which
takes as long as it takes to read all of it. p2pfs reset DIR gives a fresh scratch or upper layer.

${imageHelp('ext4; of trees erofs')}
${commonHelp}
`

const options = { as: { type: 'string' }, scratch: { type: 'string' }, writable: { type: 'boolean' }, size: { type: 'string' }, ...imageOptions } as const

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE', 'DIR'], options)
  if (parsed === undefined) return 0
  const [image = '', directory = ''] = parsed.positionals
  const { as, scratch, writable, size, ...variant } = parsed.values
  if (as !== undefined && as !== 'drive' && as !== 'tree') throw new UsageError(`--as takes drive or tree, not ${as}`)
  const request: MountRequest = {
    ...imageRequest(image, variant, resolve),
    directory: resolve(directory),
    ...(as === undefined ? {} : { as }),
    ...(writable === undefined ? {} : { writable }),
    ...(scratch === undefined ? {} : { scratchBytes: parseSize(scratch, '--scratch') }),
    ...(size === undefined ? {} : { limitBytes: parseSize(size, '--size') }),
  }
  const result = await call<MountResult>('POST', '/mount', request, { socket: parsed.control })
  process.stdout.write(`${JSON.stringify(result)}\n`)
  return 0
}
