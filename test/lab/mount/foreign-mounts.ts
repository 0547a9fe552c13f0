/**
 * A shell command that detaches the mounts of other tests, which run at the same time: a mount namespace begins with a
 * copy of all mounts, and p2pfs rightly keeps what any namespace has.
 *
 * @param directory the test's own, whose mounts stay
 */
export const detachForeignMounts = (directory: string): string =>
  `cut -d ' ' -f 5 /proc/self/mountinfo | grep '^/tmp/p2pfs-' | grep -v '^${directory}/' | tac | xargs -r umount --lazy >/dev/null 2>&1 || true`
