/**
 * Finds the last of some items that is at this offset or before it.
 *
 * @param count how many items there are
 * @param offsetOf offset of an item; items are in ascending order
 * @returns its index; -1 where all are behind the offset
 */
export function lastAtOrBefore(count: number, offset: number, offsetOf: (index: number) => number): number {
  let low = -1
  let high = count - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (offsetOf(middle) <= offset) low = middle
    else high = middle - 1
  }
  return low
}
