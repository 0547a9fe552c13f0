/** Number of mount(2) by architecture, as Node names them: asm/unistd_64.h, asm-generic/unistd.h. */
export const mountCalls: Partial<Record<string, number>> = { x64: 165, arm64: 40 }

/** MS_RDONLY of linux/mount.h. */
export const mountReadOnly = 1

/** Attributes of a mount by their names as options of mount(8): MOUNT_ATTR_* of linux/mount.h. */
export const mountAttributes = { ro: 1, nosuid: 2, nodev: 4 } as const
export type MountOption = keyof typeof mountAttributes

/** From linux/mount.h and linux/fcntl.h. */
const flags = {
  AT_FDCWD: -100,
  AT_EMPTY_PATH: 0x1000,
  OPEN_TREE_CLONE: 1,
  O_CLOEXEC: 0o2000000,
  MOVE_FROM_EMPTY_PATH: 4,
}

/**
 * A perl program that binds a directory or a file, with attributes that belong to the new mount alone: it has them before
 * it stands anywhere. Its arguments are the source, the directory, and the sum of {@link mountAttributes}; it ends with 0
 * when the mount stands. open_tree(2), mount_setattr(2) and move_mount(2) have one number for all architectures; the
 * second came with Linux 5.12.
 */
export const bindProgram = `my ($source, $directory, $attributes) = @ARGV;
my ($empty, $attr) = ("", pack("Q4", $attributes, 0, 0, 0));
my $tree = syscall(428, ${flags.AT_FDCWD}, $source, ${flags.OPEN_TREE_CLONE | flags.O_CLOEXEC});
exit 1 if $tree < 0;
exit 1 if syscall(442, $tree, $empty, ${flags.AT_EMPTY_PATH}, $attr, length($attr)) != 0;
exit(syscall(429, $tree, $empty, ${flags.AT_FDCWD}, $directory, ${flags.MOVE_FROM_EMPTY_PATH}) == 0 ? 0 : 1)`

/**
 * Numbers of fsopen(2), fsconfig(2), fsmount(2) and move_mount(2), the same on all architectures: asm-generic/unistd.h.
 */
export const filesystemCalls = { moveMount: 429, open: 430, config: 431, mount: 432 } as const
/** FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING and FSCONFIG_CMD_CREATE of linux/mount.h. */
export const configCommands = { setFlag: 0, setString: 1, create: 6 } as const
/** MOVE_MOUNT_F_EMPTY_PATH of linux/mount.h, AT_FDCWD of linux/fcntl.h. */
export const moveMountEmptyPath = 4
export const currentDirectory = -100
