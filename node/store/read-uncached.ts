import { constants } from 'node:fs'
import { open, readFile } from 'node:fs/promises'

/** The part of WebAssembly that is used here; types for Node do not declare it. */
declare const WebAssembly: { Memory: new (descriptor: { initial: number }) => { buffer: ArrayBuffer } }

/** The page size of WebAssembly, which aligns its memory to it (bytes). */
const wasmPageBytes = 64 * 1024

/**
 * The bytes of a file as the disk has them now. Direct reads need memory that is aligned to the disk's blocks;
 * WebAssembly's is.
 * @returns undefined where there is no such file
 */
export async function readUncached(path: string): Promise<Uint8Array | undefined> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_DIRECT)
    const { size } = await file.stat()
    const memory = new WebAssembly.Memory({ initial: Math.floor(size / wasmPageBytes) + 1 })
    const bytes = new Uint8Array(memory.buffer)
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0)
    return bytes.subarray(0, bytesRead)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    // The filesystem has no direct reads.
    if (code === 'EINVAL') return await readFile(path)
    throw error
  }
}
