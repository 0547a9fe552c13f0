import { run } from './process.ts'

/** Drops the kernel's cache of file contents, so that reads go to where the bytes are; for the whole machine. */
export async function dropPageCache({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
  await run('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'], { ...(signal && { signal }) })
}

/** Writes out what is dirty, then drops the kernel's caches of files, directories and inodes; for the whole machine. */
export async function dropAllCaches(): Promise<void> {
  await run('sh', ['-c', 'sync && echo 3 > /proc/sys/vm/drop_caches'])
}
