import type { Log } from '../base/log.ts'
import type { Config } from '../config/options.ts'

/** The surroundings with which every group of parts is opened. */
export interface DaemonContext {
  config: Config
  log: Log
  version: string
  /** Paths below the state directory. */
  paths: Readonly<
    Record<'chunks' | 'catalog' | 'catalogInMemory' | 'mounts' | 'reserve' | 'identity' | 'limits', string>
  >
  /** Parts that need to be closed are pushed on it as they are opened; the last one is closed first. */
  stack: AsyncDisposableStack
  /** Descriptor of the memory with the credentials that the daemon before has left, if there is one. */
  callersFd: number | undefined
  /** Aborted when the daemon stops. */
  signal: AbortSignal
}
