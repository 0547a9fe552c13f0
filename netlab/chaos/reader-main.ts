/** A program: compares parts of files with the truth, one job at a time, as its parent says. */
import { open } from 'node:fs/promises'

/** Compares bytes of one file with those of another. Paths are Latin-1, one character per byte. */
export interface ReadJob {
  path: string
  truthPath: string
  offset: number
  lengthBytes: number
  pieceBytes: number
}

/** A piece is done; or the job is: all bytes are the same, a byte differs, or a read of `path` has failed. */
export type ReadReport = 'piece' | { sameBytes: number } | { differsAt: number } | { error: string; offset: number }

async function compare({ path, truthPath, offset, lengthBytes, pieceBytes }: ReadJob): Promise<ReadReport> {
  await using truth = await open(Buffer.from(truthPath, 'latin1'))
  let position = offset
  try {
    await using file = await open(Buffer.from(path, 'latin1'))
    while (position < offset + lengthBytes) {
      const length = Math.min(pieceBytes, offset + lengthBytes - position)
      const [found, expected] = [Buffer.alloc(length), Buffer.alloc(length)]
      const expectedBytes = (await truth.read(expected, 0, length, position)).bytesRead
      const foundBytes = await readFully(file, found, position)
      const common = Math.min(foundBytes, expectedBytes)
      for (let i = 0; i < common; i++) if (found[i] !== expected[i]) return { differsAt: position + i }
      if (foundBytes !== expectedBytes) return { differsAt: position + common }
      position += foundBytes
      if (foundBytes < length) break
      process.send!('piece' satisfies ReadReport)
    }
    return { sameBytes: position - offset }
  } catch (error) {
    return { error: (error as NodeJS.ErrnoException).code ?? String(error), offset: position }
  }
}

/** A read may return less than what was asked for before the end. @returns the bytes up to the end of the file */
async function readFully(file: Awaited<ReturnType<typeof open>>, target: Buffer, position: number): Promise<number> {
  let filled = 0
  while (filled < target.length) {
    const { bytesRead } = await file.read(target, filled, target.length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return filled
}

process.on('message', (job: ReadJob) => {
  void compare(job).then((report) => process.send!(report))
})
process.on('disconnect', () => process.exit())
