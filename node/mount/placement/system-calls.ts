/** Number of mount(2) by architecture, as Node names them: asm/unistd_64.h, asm-generic/unistd.h. */
export const mountCalls: Partial<Record<string, number>> = { x64: 165, arm64: 40 }

/** MS_RDONLY of linux/mount.h. */
export const mountReadOnly = 1
