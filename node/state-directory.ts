import { readdir, realpath } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { P2pfsError } from '../protocol/errors.ts'
import { isDiskFull } from './base/disk-full.ts'
import type { Log } from './base/log.ts'
import { makeDirectory } from './base/make-directory.ts'
import { changeableAncestor, makeFilePrivate, makePrivateDirectory } from './base/private-directory.ts'
import { systemError } from './base/system-error.ts'
import type { Config } from './config/options.ts'

/** Paths below the state directory. */
export function statePaths(
  stateDir: string,
): Record<
  | 'chunks'
  | 'catalog'
  | 'reserve'
  | 'identity'
  | 'limits'
  | 'mountPoint'
  | 'trees'
  | 'memory'
  | 'mounts'
  | 'catalogInMemory'
  | 'native'
  | 'writable'
  | 'scratch'
  | 'drives'
  | 'templates',
  string
> {
  return {
    chunks: join(stateDir, 'chunks'),
    catalog: join(stateDir, 'catalog'),
    reserve: join(stateDir, 'reserve'),
    identity: join(stateDir, 'identity.key'),
    /** Limits that were changed while a daemon ran. */
    limits: join(stateDir, 'limits.json'),
    /** The FUSE filesystem. */
    mountPoint: join(stateDir, 'mnt'),
    /** Kernel mounts of images. */
    trees: join(stateDir, 'trees'),
    /** A tmpfs, where the supervisor can mount one. */
    memory: join(stateDir, 'run'),
    /** Records of mounts. */
    mounts: join(stateDir, 'run/mounts'),
    /** The catalog while the disk is full. */
    catalogInMemory: join(stateDir, 'run/catalog'),
    /** Whole images for the kernel alone: their segments in one piece, and the mounts of these. */
    native: join(stateDir, 'native'),
    /** Upper layers of writable trees, and the overlays that use them. */
    writable: join(stateDir, 'writable'),
    scratch: join(stateDir, 'scratch'),
    /** Directories of drives that have a scratch. */
    drives: join(stateDir, 'drives'),
    /** Empty disks that upper layers and scratch drives are copied from. */
    templates: join(stateDir, 'templates'),
  }
}

/**
 * The kernel tells paths of mounts without symbolic links, so the state directory has to be known by such a path. It is
 * this user's alone, wherever a link leads.
 */
export async function withRealStateDir(config: Config, log: Log): Promise<Config> {
  try {
    await makeDirectory(config.stateDir, { mode: 0o700 })
    const stateDir = await realpath(config.stateDir)
    const check = async (): Promise<void> => await refuseSharedDirectory(stateDir)
    const { formerMode } = await makePrivateDirectory(stateDir, { check })
    if (formerMode !== undefined)
      log.warn('state directory was open to other users; it is closed', { stateDir, mode: formerMode.toString(8) })
    return { ...config, stateDir }
  } catch (error) {
    throw systemError(`cannot use the state directory ${config.stateDir}`, error)
  }
}

/** A directory of others is not closed to them because somebody named it by mistake, as /tmp. @throws invalid */
async function refuseSharedDirectory(stateDir: string): Promise<void> {
  const own = new Set(
    [...Object.values(statePaths('')), 'lock', 'supervisor.lock', 'lost+found'].map((path) => basename(path)),
  )
  const foreign = (await readdir(stateDir)).find((name) => !own.has(name))
  if (foreign === undefined) return
  throw new P2pfsError(
    'invalid',
    `it is open to other users, and has more than the state of p2pfs in it (${foreign}); if it is for p2pfs alone, ` +
      `chmod 700 ${stateDir}, otherwise choose a directory that is not there yet`,
  )
}

/** Sees to it that only this user gets to what is in the state directory, whatever stood there before. @throws invalid */
export async function closeToOthers(stateDir: string, log: Log): Promise<void> {
  const { chunks, catalog, trees, native, writable, scratch, drives, templates, identity } = statePaths(stateDir)
  for (const directory of [chunks, catalog, trees, native, writable, scratch, drives, templates]) {
    const { formerMode } = await makePrivateDirectory(directory).catch((error: unknown) => {
      // It is made when there is room for something in it.
      if (isDiskFull(error)) return { formerMode: undefined }
      throw systemError(`cannot use the state directory ${stateDir}`, error)
    })
    if (formerMode !== undefined)
      log.warn('directory was open to other users; it is closed', { directory, mode: formerMode.toString(8) })
  }
  const { formerMode } = await makeFilePrivate(identity)
  if (formerMode !== undefined)
    log.warn('private key of this host was open to other users, who may have it; remove it to get a new one', {
      file: identity,
      mode: formerMode.toString(8),
    })
  const above = await changeableAncestor(stateDir)
  if (above !== undefined)
    log.warn('other users can put another directory in the place of the state directory', { stateDir, above })
}
