/** Whether the error, or one that caused it, says that the disk or the user's quota is full. */
export function isDiskFull(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOSPC' || code === 'EDQUOT') return true
    // LevelDB and system tools say it in words only.
    if (/no space left on device|disk quota exceeded/i.test(message)) return true
  }
  return false
}

/** What the disk throws when it is full. */
export function diskFull(): Error {
  return Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
}
