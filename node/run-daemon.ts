import { join } from 'node:path'
import packageManifest from '../package.json' with { type: 'json' }
import { exitStatusOf } from './base/exit-status.ts'
import type { Log } from './base/log.ts'
import type { Config } from './config/options.ts'
import { startDaemon, type DaemonParts } from './daemon.ts'
import { DiskTemplates } from './mount/placement/disk-template.ts'
import { DevFuseDriver } from './mount/fuse/dev-fuse-driver.ts'
import { FuseNativeDriver } from './mount/fuse/fuse-native-driver.ts'
import { NativeImages, type NativeKind } from './mount/native/native-images.ts'
import { SegmentFiles } from './mount/native/segment-files.ts'
import { KernelMounter } from './mount/placement/kernel-mounter.ts'
import { KernelPlacement } from './mount/placement/kernel-placement.ts'
import { Reach } from './mount/placement/reach.ts'
import { LinkPlacement } from './mount/placement/link-placement.ts'
import { DriveDirectories } from './mount/placement/drive-directories.ts'
import { ScratchDrives } from './mount/placement/scratch-drives.ts'
import { ToolShell } from './mount/placement/tool-shell.ts'
import { Trees } from './mount/placement/trees.ts'
import { UseCheck } from './mount/placement/use-check.ts'
import { WritableLayers } from './mount/placement/writable-layers.ts'
import { statePaths } from './state-directory.ts'
import { inherited } from './service/descriptors.ts'
import type { FromDaemon } from './supervisor.ts'

/** Starts the daemon and waits for a signal. Mounts outlive it if a supervisor holds them. @returns the exit status */
export async function runDaemon(config: Config, log: Log): Promise<number> {
  const temporaryPath = process.env[inherited.control.variable]
  let daemon: AsyncDisposable
  const stop = Promise.withResolvers<void>()
  process.on('SIGTERM', stop.resolve).on('SIGINT', stop.resolve)
  process.on('SIGHUP', () => {
    if (temporaryPath !== undefined) stop.resolve()
    else
      log.warn(
        'daemon is not replaced: without a supervisor its mounts would end; restart it to use a changed program or configuration',
      )
  })
  process.on('disconnect', () =>
    log.warn('supervisor has ended; this daemon serves alone until another takes over', { pid: process.pid }),
  )
  try {
    const control = temporaryPath === undefined ? undefined : { fd: inherited.control.fd, temporaryPath }
    const openMountBackend = mountBackendFor(config, log)
    const callersFd = process.env[inherited.callers.variable] === undefined ? undefined : inherited.callers.fd
    const { version } = packageManifest
    const parts = { log, version, openMountBackend, control, replacements: replacements(), callersFd }
    daemon = await startDaemon(parts, config)
  } catch (error) {
    log.error('daemon cannot start', { error })
    return exitStatusOf(error)
  }
  await tellSupervisor('ready')
  await stop.promise
  await daemon[Symbol.asyncDispose]()
  return 0
}

/** As the supervisor counts them: {@link inherited.replaced}. */
function replacements(): DaemonParts['replacements'] {
  const [ordered = 0, unexpected = 0] = (process.env[inherited.replaced] ?? '0,0').split(',').map(Number)
  return { ordered, unexpected }
}

/** Resolves when the message has been sent. */
export async function tellSupervisor(message: FromDaemon): Promise<void> {
  if (!process.connected) return
  await new Promise<void>((resolve) => process.send!(message, undefined, undefined, () => resolve()))
}

function mountBackendFor(config: Config, log: Log): DaemonParts['openMountBackend'] {
  const {
    mountPoint,
    trees,
    native,
    writable,
    scratch,
    drives,
    templates: templateDirectory,
  } = statePaths(config.stateDir)
  return ({ chunkDirectory, suspect, storeRoom }) => {
    if (config.fuseDriver === 'native') {
      return {
        driver: new FuseNativeDriver({ log }, { mountPoint }),
        placement: new LinkPlacement({ mountPoint }),
        natives: undefined,
      }
    }
    const fd = Number(process.env[inherited.fuse.variable])
    // Nothing can be served before the supervisor has mounted again.
    const lost = (): void => {
      log.error('FUSE filesystem is no longer served; the daemon is replaced')
      process.kill(process.pid, 'SIGKILL')
    }
    const resumed = process.env[inherited.resumed] !== undefined
    const { run } = new ToolShell()
    const mounter = new KernelMounter({ run })
    const uses = new UseCheck({ run })
    const templates = new DiskTemplates({ run }, { directory: templateDirectory })
    const segments = new SegmentFiles(
      { suspect, storeRoom, run, log },
      { directory: join(native, 'segments'), chunkDirectory, limitBytes: config.nativeLimit },
    )
    const natives = new NativeImages({ segments, mounter, log }, { directory: native, kinds: nativeKindsOf(config) })
    return {
      natives,
      driver: new DevFuseDriver({ fd, resumed, chunkDirectory, log, lost }, { workers: config.fuseWorkers }),
      placement: new KernelPlacement(
        {
          mounter,
          trees: new Trees({ mounter }, { directory: trees, mountPoint }),
          writables: new WritableLayers({ mounter, templates, uses, log }, { directory: writable }),
          scratches: new ScratchDrives({ templates, uses, log }, { directory: scratch }),
          drives: new DriveDirectories({ mounter, log }, { directory: drives }),
          reach: new Reach({ run }),
          natives,
        },
        { mountPoint, roots: [mountPoint, trees, native, writable, drives] },
      ),
    }
  }
}

function nativeKindsOf({ nativeReads }: Pick<Config, 'nativeReads'>): NativeKind[] {
  if (nativeReads === 'off') return []
  return nativeReads === 'all' ? ['tree', 'drive'] : ['tree']
}
