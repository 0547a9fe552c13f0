import { formatVersion } from '../../protocol/layer-index.ts'
import type { Log } from '../base/log.ts'
import { foreign, unsigned } from './keys.ts'
import type { RecordDatabase } from './record-database.ts'

/**
 * Removes the records of earlier versions that this one cannot use, and says so. Image records whose names nobody has signed:
 * their images are resolved again. Records of another format version: their images are imported again.
 */
export async function removeFormerRecords(database: RecordDatabase, log: Log): Promise<void> {
  for (const range of unsigned) {
    const records = (await database.keys(range)).length
    if (records === 0) continue
    log.info('image records of an earlier version are removed; their images are resolved again', { records })
    await database.clear(range)
  }
  for (const range of foreign) {
    const keys = await database.keys(range)
    if (keys.length === 0) continue
    const versions = [...new Set(keys.map((key) => /^(\d+)\//.exec(key)?.[1] ?? 'none'))]
    log.warn(
      'records of another format version are removed: their images are imported again, their seeds are forgotten',
      { records: keys.length, versions, version: formatVersion },
    )
    await database.clear(range)
  }
}
