import { getPriority, setPriority } from 'node:os'
import { bulkNiceness } from './bulk-limits.ts'

/** The greatest of Linux: the least of a core. */
const maxNiceness = 19

/** Lets the rest of the process come before this thread: on Linux the calls are about the thread that makes them. */
export function giveWay(): void {
  setPriority(0, Math.min(getPriority() + bulkNiceness, maxNiceness))
}
