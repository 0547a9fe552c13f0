import { failed, type Answer } from './backend.ts'

/** A body that ranges can be read from. */
export interface RangedBody {
  sizeBytes: number
  mediaType: string
  /** Bytes [start, end). */
  read: (start: number, end: number) => AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

/** Answers as RFC 9110, section 14: with all bytes, a range, several ranges as multipart/byteranges, or 416. */
export function answerRange(
  { sizeBytes, mediaType, read }: RangedBody,
  header: string | undefined,
  headers: Record<string, string> = {},
): Answer {
  const ranges = header === undefined ? undefined : parseRanges(header, sizeBytes)
  const common = { 'accept-ranges': 'bytes', ...headers }
  if (ranges === undefined)
    return {
      status: 200,
      headers: { ...common, 'content-type': mediaType },
      length: sizeBytes,
      body: read(0, sizeBytes),
    }
  const contentRange = ({ start, end }: Range): string => `bytes ${start}-${end - 1}/${sizeBytes}`
  const [only] = ranges
  if (only === undefined) return failed(416, 'RANGE_INVALID', { 'content-range': `bytes */${sizeBytes}` })
  if (ranges.length === 1) {
    return {
      status: 206,
      headers: { ...common, 'content-type': mediaType, 'content-range': contentRange(only) },
      length: only.end - only.start,
      body: read(only.start, only.end),
    }
  }
  const boundary = 'p2pfs-lab-boundary'
  async function* multipart(): AsyncGenerator<Uint8Array> {
    for (const range of ranges!) {
      yield Buffer.from(`--${boundary}\r\nContent-Type: ${mediaType}\r\nContent-Range: ${contentRange(range)}\r\n\r\n`)
      yield* read(range.start, range.end)
      yield Buffer.from('\r\n')
    }
    yield Buffer.from(`--${boundary}--\r\n`)
  }
  return {
    status: 206,
    headers: { ...common, 'content-type': `multipart/byteranges; boundary=${boundary}` },
    length: undefined,
    body: multipart(),
  }
}

interface Range {
  start: number
  end: number
}

/** The ranges that can be satisfied. Undefined if the header has no byte ranges, and is to be ignored. */
function parseRanges(header: string, sizeBytes: number): Range[] | undefined {
  const match = /^bytes=(.+)$/.exec(header)
  if (match === null) return undefined
  const found: Range[] = []
  for (const part of match[1]!.split(',')) {
    const [, first = '', last = ''] = /^\s*(\d*)-(\d*)\s*$/.exec(part) ?? []
    if (first === '' && last === '') return undefined
    if (first !== '' && last !== '' && Number(last) < Number(first)) return undefined
    const start = first === '' ? Math.max(0, sizeBytes - Number(last)) : Number(first)
    const end = first === '' || last === '' ? sizeBytes : Math.min(sizeBytes, Number(last) + 1)
    if (start < end) found.push({ start, end })
  }
  return found
}
