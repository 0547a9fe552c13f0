import { resolve } from 'node:path'
import type { MountRequest, MountResult } from '../node/control/api.ts'
import { pullPolicies, type PullPolicy } from '../node/model/image.ts'
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
  --pull WHEN       ask the registry what the tag stands for now: auto (unless the image is whole on this host), always,
                    missing (only where nobody in the region knows it), never [auto]; one that does not answer is not waited for
  --scratch SIZE    drives: make a second, writable, empty ext4 drive of which SIZE is free; ends with the mount
  --writable        trees: an overlay takes writes; they end with the mount
  --size SIZE       writable trees: no more than this can be written [what the host's disk has]

Prints JSON: "rootfs", the path of the image file, or the directory of the tree; "scratch", that of the scratch drive; "as",
"format"; "digest" of the rootfs, "manifestDigest" of the image; "origin" of the rootfs manifest (local, peer, registry: published
there, built: all layers were read here); "resolution", who says what a tag stands for (registry, last-known; digest where one is
given); "sizeBytes", "localBytes", "fetched" from peers and the registry so far; "warnings"; the OCI image "config". Content is fetched when it is read.
An image that nobody in the region has seeded, and nobody has published in its registry, is imported first, which takes as long
as it takes to read all of it. p2pfs reset DIR gives a fresh scratch or upper layer.

${imageHelp('ext4; of trees erofs')}
${commonHelp}
`

const options = {
  as: { type: 'string' },
  scratch: { type: 'string' },
  writable: { type: 'boolean' },
  size: { type: 'string' },
  pull: { type: 'string' },
  ...imageOptions,
} as const

function parsePull(value: string): PullPolicy {
  const policy = pullPolicies.find((known) => known === value)
  if (policy === undefined) throw new UsageError(`--pull takes ${pullPolicies.join(', ')}, not ${value}`)
  return policy
}

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE', 'DIR'], options)
  if (parsed === undefined) return 0
  const [image = '', directory = ''] = parsed.positionals
  const { as, scratch, writable, size, pull, ...variant } = parsed.values
  if (as !== undefined && as !== 'drive' && as !== 'tree') throw new UsageError(`--as takes drive or tree, not ${as}`)
  const request: MountRequest = {
    ...imageRequest(image, variant, resolve),
    directory: resolve(directory),
    ...(as === undefined ? {} : { as }),
    ...(pull === undefined ? {} : { pull: parsePull(pull) }),
    ...(writable === undefined ? {} : { writable }),
    ...(scratch === undefined ? {} : { scratchBytes: parseSize(scratch, '--scratch') }),
    ...(size === undefined ? {} : { limitBytes: parseSize(size, '--size') }),
  }
  const result = await call<MountResult>('POST', '/mount', request, { socket: parsed.control })
  if (result.unanswered !== undefined)
    process.stderr.write(
      `p2pfs: mounted what ${image} was last known as, ${result.manifestDigest}: ${result.unanswered}\n`,
    )
  process.stdout.write(`${JSON.stringify(result)}\n`)
  return 0
}
