/** Number of mount(2) by architecture, as Node names them: asm/unistd_64.h, asm-generic/unistd.h. */
export const mountCalls: Partial<Record<string, number>> = { x64: 165, arm64: 40 }

/** MS_RDONLY of linux/mount.h. */
export const mountReadOnly = 1

/**
 * Numbers of fsopen(2), fsconfig(2), fsmount(2) and move_mount(2), the same on all architectures: asm-generic/unistd.h.
 */
export const filesystemCalls = { moveMount: 429, open: 430, config: 431, mount: 432 } as const
/** FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING and FSCONFIG_CMD_CREATE of linux/mount.h. */
export const configCommands = { setFlag: 0, setString: 1, create: 6 } as const
/** MOUNT_ATTR_RDONLY of linux/mount.h. */
export const mountAttributes = { readOnly: 1 } as const
/** MOVE_MOUNT_F_EMPTY_PATH of linux/mount.h, AT_FDCWD of linux/fcntl.h. */
export const moveMountEmptyPath = 4
export const currentDirectory = -100
