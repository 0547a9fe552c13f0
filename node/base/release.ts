/**
 * Frees the memory of bytes that nobody reads any more: the garbage collector would let tens of megabytes of them
 * stand. Does nothing for bytes that share their ArrayBuffer.
 */
export function release(bytes: Uint8Array): void {
  const { buffer } = bytes
  if (buffer instanceof ArrayBuffer && !buffer.detached && bytes.byteLength === buffer.byteLength) buffer.transfer(0)
}
