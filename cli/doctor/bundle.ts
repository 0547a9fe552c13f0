import { gzipSync } from 'node:zlib'
import { redact, redactValue } from '../../node/base/redact.ts'

/** The files of a bundle, by name: texts, and values that become JSON. */
export type BundleParts = Readonly<Record<string, string | object | undefined>>

/** POSIX ustar: a header and the content, both in blocks. */
const blockBytes = 512

/**
 * A compressed tar of texts and values, all without secrets.
 * @param parts by the name of the file; what is undefined is left out
 * @param timeMs of all files (ms since 1970)
 */
export function makeBundle(parts: BundleParts, timeMs: number): Buffer {
  const blocks: Buffer[] = []
  for (const [name, part] of Object.entries(parts)) {
    if (part === undefined) continue
    const text =
      typeof part === 'string' ? redact(part) : redact(`${JSON.stringify(redactValue(part), undefined, 2)}\n`)
    const content = Buffer.from(text)
    const padding = Buffer.alloc((blockBytes - (content.length % blockBytes)) % blockBytes)
    blocks.push(header(`p2pfs-doctor/${name}`, content.length, timeMs), content, padding)
  }
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(2 * blockBytes)]))
}

function header(name: string, sizeBytes: number, timeMs: number): Buffer {
  const block = Buffer.alloc(blockBytes)
  const octal = (value: number, offset: number, length: number): void =>
    void block.write(value.toString(8).padStart(length - 1, '0'), offset)
  block.write(name, 0, 100)
  octal(0o600, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(sizeBytes, 124, 12)
  octal(Math.floor(timeMs / 1000), 136, 12)
  // The sum is that of the header with spaces in its own place.
  block.write('        0ustar\x0000', 148, 'latin1')
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}
