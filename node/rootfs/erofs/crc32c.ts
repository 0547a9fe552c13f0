const table = new Uint32Array(256)
for (let i = 0; i < 256; i++) {
  let value = i
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0)
  table[i] = value >>> 0
}

/** Castagnoli's CRC as the kernel computes it: from a given start, and without inverting the result. */
export function crc32c(bytes: Uint8Array, start: number): number {
  let crc = start
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 0xff]!
  return crc >>> 0
}
