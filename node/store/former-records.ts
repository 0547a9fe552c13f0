import { formatVersion } from '../../protocol/layer-index.ts'
import type { Log } from '../base/log.ts'
import { foreign, unsigned } from './keys.ts'
import type { CatalogRecords } from './catalog-records.ts'

/**
 * Removes the records of earlier versions that this one cannot use, and says so. Image records whose names nobody has signed:
 * their images are resolved again. Records of another format version: their images are imported again.
 */
export async function removeFormerRecords(records: CatalogRecords, log: Log): Promise<void> {
  for (const range of unsigned) {
    const count = (await records.keys(range)).length
    if (count === 0) continue
    log.info('image records of an earlier version are removed; their images are resolved again', { records: count })
    await records.clear(range)
  }
  for (const range of foreign) {
    const keys = await records.keys(range)
    if (keys.length === 0) continue
    const versions = [...new Set(keys.map((key) => /^(\d+)\//.exec(key)?.[1] ?? 'none'))]
    log.warn(
      'records of another format version are removed: their images are imported again, their seeds are forgotten',
      { records: keys.length, versions, version: formatVersion },
    )
    await records.clear(range)
  }
}
