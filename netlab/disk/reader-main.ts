import { closeSync, openSync, readSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { ReadJob, ReadResult } from './read-job.ts'

/**
 * Reads what it is told to on its standard input, a job a line, and answers with a line each. It blocks as other
 * programs do.
 */
for await (const line of createInterface(process.stdin)) {
  const { reads } = JSON.parse(line) as ReadJob
  const result: ReadResult = { ms: [], failures: [], wrong: 0 }
  for (const { file, truth, offset, length } of reads) {
    const startedAtMs = performance.now()
    try {
      const bytes = piece(file, offset, length)
      result.ms.push(performance.now() - startedAtMs)
      if (!bytes.equals(piece(truth, offset, length))) result.wrong++
    } catch (error) {
      result.failures.push(`${file} at ${offset}: ${(error as Error).message}`)
    }
  }
  process.stdout.write(`${JSON.stringify(result)}\n`)
}

function piece(file: string, offset: number, length: number): Buffer {
  const fd = openSync(file, 'r')
  try {
    const bytes = Buffer.alloc(length)
    return bytes.subarray(0, readSync(fd, bytes, 0, length, offset))
  } finally {
    closeSync(fd)
  }
}
