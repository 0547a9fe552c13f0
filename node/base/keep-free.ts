import { P2pfsError } from '../../protocol/errors.ts'
import { parseByteSize } from './byte-size.ts'

/** A disk of any size need not have more free than this for the default (bytes): as seeds of members leave it. */
const defaultMostBytes = 10 * 2 ** 30
const defaultShare = 0.1

/** The option's value when it is not given. */
export const defaultKeepFree = 'auto'

/**
 * `20GiB`, `15%`, `0`, or `auto`: a tenth of the disk, or 10 GiB where that is less.
 * @returns what stays free on a disk of so many bytes
 * @throws invalid
 */
export function parseKeepFree(text: string): (diskBytes: number) => number {
  if (text === defaultKeepFree) return (diskBytes) => Math.min(defaultMostBytes, defaultShare * diskBytes)
  const percent = /^(\d{1,2}(?:\.\d{1,3})?) ?%$/.exec(text.trim())?.[1]
  if (percent !== undefined) return (diskBytes) => (Number(percent) / 100) * diskBytes
  const bytes = parseByteSize(text)
  if (bytes === undefined)
    throw new P2pfsError('invalid', `${text} is neither a size such as 20GiB nor a share of the disk such as 15%`)
  return () => bytes
}
