import { resolve } from 'node:path'
import type { MountRequest } from '../node/control/api.ts'
import { pullPolicies } from '../node/model/image.ts'
import { parseOwner, type Owner } from '../node/model/owner.ts'
import { parseMountRequest } from '../node/control/requests.ts'
import { checkRequest, imageArgument, imageOptions, imageRequest } from './arguments.ts'
import { authOptions, withAuth } from './auth.ts'
import { describeCommand, parseCommand } from './command.ts'
import { UsageError } from './failure.ts'
import { printJson, printNote } from './output.ts'
import { callShowingProgress, progressOption } from './progress.ts'
import { noteRestriction } from './restriction.ts'
import { parseSize } from './size.ts'
import { parseMs } from './time.ts'

export const command = describeCommand({
  name: 'mount',
  usage: ['IMAGE DIR'],
  text: `Mounts the root filesystem of an image on DIR. As a drive, DIR/rootfs.img is the block image for a VM.
As a tree, DIR has the files for a container, mounted by this host's kernel. Content is fetched when it
is read.`,
  positionals: { ...imageArgument, DIR: { help: 'an existing directory', completes: 'directory' } },
  options: {
    as: {
      value: 'drive|tree',
      help: 'a block image for a VM, or files for a container',
      fallback: 'drive',
      choices: ['drive', 'tree'],
    },
    pull: {
      value: 'WHEN',
      help:
        'when to ask the registry what the tag stands for: always, newer (unless somebody in the region has asked it a ' +
        'moment ago, or all of the image is on this host), missing (only if nobody in the region knows the tag), never, ' +
        "or auto: as the daemon's --pull says. If the registry does not answer soon (the daemon's --resolve-budget), " +
        'the last known image is mounted. With always and credentials the registry must let them read the image',
      fallback: 'auto',
      choices: pullPolicies,
    },
    'require-access': {
      help:
        'mount only what the registry lets the given credentials read, or anybody where none are given, whatever is ' +
        'known of it: one request a minute for each image and caller',
    },
    timeout: { value: 'TIME', help: 'give the mount up after this time, such as 500ms or 30s' },
    scratch: {
      value: 'SIZE',
      help: 'drives: add a second, writable, empty ext4 drive with SIZE of free space; it ends with the mount',
    },
    writable: { help: 'trees: take writes in an overlay; they end with the mount' },
    size: {
      value: 'SIZE',
      help: 'writable trees: limit of what can be written',
      fallback: "free space of the host's disk",
    },
    owner: {
      value: 'UID:GID',
      help: 'drives: this user may open the image file too, and has the scratch drive; otherwise only root may',
    },
    'allow-others': {
      help:
        'trees: setuid programs and device nodes of the image work for every user who can get to DIR; otherwise only ' +
        'where no user but root can',
    },
    ...authOptions,
    ...imageOptions('ext4; for trees erofs'),
    ...progressOption,
  },
  notes: `An image that is neither known in the region nor published in its registry is imported first, which reads all its
layers once. p2pfs reset DIR empties a scratch drive or the overlay of a writable tree.

Prints a JSON object:
  rootfs          path of the image file, or the directory of the tree
  scratch         path of the scratch drive's image file, DIR/scratch.img
  restricted      present if setuid programs and device nodes of a tree do not work: its mount options, and the reason
  as, format      as requested
  digest          digest of the rootfs
  manifestDigest  digest of the image manifest
  origin          source of the rootfs manifest: local, peer, registry (published there) or built (from all layers)
  resolution      who said what the tag stands for: registry, last-known (an earlier answer) or digest (no tag given)
  belief          who is believed. name: digest, registry, own-past (this host asked it earlier), listed-key or member;
                  index: built (from all layers), told-layers (from layer indexes of members), listed-key or member;
                  namedBy, maker: peer ids. member and told-layers are verified later
  sizeBytes, localBytes, fetched, warnings   as in p2pfs status
  config          the OCI image config`,
})

function parseOwnerFlag(value: string): Owner {
  try {
    return parseOwner(value)
  } catch (error) {
    throw new UsageError(`--owner: ${(error as Error).message}`)
  }
}

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const [image = '', directory = ''] = parsed.positionals
  const {
    as,
    scratch,
    writable,
    size,
    pull,
    owner,
    'allow-others': allowOthers,
    'require-access': requireAccess,
    timeout,
    progress,
    ...more
  } = parsed.values
  const { auth, rest: variant } = await withAuth(image, more)
  const request: MountRequest = checkRequest(parseMountRequest, {
    ...imageRequest(image, variant, resolve),
    ...auth,
    directory: resolve(directory),
    ...(as === undefined ? {} : { as }),
    ...(pull === undefined ? {} : { pull }),
    ...(writable === undefined ? {} : { writable }),
    ...(scratch === undefined ? {} : { scratchBytes: parseSize(scratch, '--scratch') }),
    ...(size === undefined ? {} : { limitBytes: parseSize(size, '--size') }),
    ...(owner === undefined ? {} : { owner: parseOwnerFlag(owner) }),
    ...(allowOthers === undefined ? {} : { allowOthers }),
    ...(requireAccess === undefined ? {} : { requireAccess }),
    ...(timeout === undefined ? {} : { timeoutMs: parseMs(timeout, '--timeout') }),
  })
  const result = await callShowingProgress('mount', request, { ...parsed, mode: progress })
  if (result.unanswered !== undefined)
    printNote(`mounted ${result.manifestDigest}, the last known image of ${image}: ${result.unanswered}`)
  noteRestriction(result)
  printJson(result)
  return 0
}
