/** Descriptors that the daemon inherits, and the environment variables that name them. */
export const inherited = {
  /** Descriptor of /dev/fuse. */
  fuse: { fd: 3, variable: 'P2PFS_FUSE_FD' },
  /** Descriptor of the state directory's lock, which is held as long as any process has it. */
  lock: { fd: 4 },
  /** Descriptor of the control socket; the variable has the path that it is bound to until it is published. */
  control: { fd: 5, variable: 'P2PFS_CONTROL_BOUND' },
  /** Memory with the credentials of mounts, where there is one. The channel to the supervisor is 6. */
  callers: { fd: 7, variable: 'P2PFS_CALLERS_FD' },
  /** Variable that is set if another daemon has served the mount before. */
  resumed: 'P2PFS_RESUMED',
  /** Variable that has how many daemons were replaced by order, and how many because they ended: `1,0`. */
  replaced: 'P2PFS_REPLACED',
} as const

/** Descriptors that outlive a supervisor, by the names under which a service manager stores them. */
export const descriptorNames = ['fuse', 'lock', 'control', 'callers'] as const
export type DescriptorName = (typeof descriptorNames)[number]
export type Descriptors = Partial<Record<DescriptorName, number>>

/** SD_LISTEN_FDS_START of sd_listen_fds(3). */
const firstDescriptor = 3

/**
 * Takes what an earlier supervisor has left to this process by the protocol of sd_listen_fds_with_names(3): from the store of
 * a service manager, or from a process that {@link takeOver} has asked. Removes the variables from `environment`, so that no
 * child takes them for its own.
 */
export function receivedDescriptors(environment: NodeJS.ProcessEnv, pid: number): Descriptors {
  const { LISTEN_PID: owner, LISTEN_FDS: count, LISTEN_FDNAMES: names = '' } = environment
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete environment[name]
  if (Number(owner) !== pid) return {}
  const received: Descriptors = {}
  for (const [index, name] of names.split(':').slice(0, Number(count)).entries()) {
    const known = descriptorNames.find((candidate) => candidate === name)
    if (known !== undefined) received[known] ??= firstDescriptor + index
  }
  return received
}

/** The variables with which {@link receivedDescriptors} finds `names`, in their order, in a process that has them from 3 on. */
export function listenVariables(names: readonly DescriptorName[], pid: number): Record<string, string> {
  return { LISTEN_PID: String(pid), LISTEN_FDS: String(names.length), LISTEN_FDNAMES: names.join(':') }
}
