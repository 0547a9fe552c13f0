/** Index of the last item at this offset or before it; -1 where all are behind it. The items are in ascending order. */
export function lastAtOrBefore<T>(items: ArrayLike<T>, offset: number, offsetOf: (item: T) => number): number {
  let low = -1
  let high = items.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (offsetOf(items[middle]!) <= offset) low = middle
    else high = middle - 1
  }
  return low
}
