const storeFullCode = 'ESTOREFULL'

/** Whether the error, or one that caused it, says that the disk, the user's quota or the store is full. */
export function isDiskFull(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOSPC' || code === 'EDQUOT' || code === storeFullCode) return true
    // LevelDB and system tools say it in words only.
    if (/no space left on device|disk quota exceeded/i.test(message)) return true
  }
  return false
}

/** Returns the error that the disk throws when it is full. */
export function diskFull(): Error {
  return Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
}

/** Whether the error, or one that caused it, says that the store has reached its limit: the disk itself may have room. */
export function isStoreFull(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++)
    if ((cause as NodeJS.ErrnoException).code === storeFullCode) return true
  return false
}

/** Returns the error that is thrown where the store has reached its limit. */
export function storeFull(): Error {
  return Object.assign(new Error('the store has reached its limit (--store-limit, --store-keep-free)'), {
    code: storeFullCode,
  })
}
