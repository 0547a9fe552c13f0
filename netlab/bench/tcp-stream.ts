import { eventually } from '../../test/support/deadline.ts'
import type { LabHost } from '../hosts/lab-host.ts'

const port = 9000
const startTimeoutMs = 10_000
/** The size in which peers write chunks to each other. */
const writeBytes = 512 << 10

const sender = `
const [address, port, total, piece] = process.argv.slice(1)
const buffer = Buffer.alloc(Number(piece), 7)
require('node:net').createServer((socket) => {
  let left = Number(total)
  const write = () => {
    while (left > 0) {
      const bytes = buffer.subarray(0, Math.min(left, buffer.length))
      left -= bytes.length
      if (!socket.write(bytes)) return socket.once('drain', write)
    }
    socket.end()
  }
  socket.on('error', () => {})
  write()
}).listen(Number(port), address, () => console.error('listening'))
`

const receiver = `
const [address, port] = process.argv.slice(1)
const startedAt = performance.now()
let bytes = 0
require('node:net').connect({ host: address, port: Number(port), onread: { buffer: Buffer.alloc(1 << 20), callback: (n) => { bytes += n; return true } } })
  .on('error', (error) => { throw error })
  .on('close', () => console.log(JSON.stringify({ bytes, ms: performance.now() - startedAt })))
`

/** Sends `sizeBytes` over one plain TCP connection, Node to Node, and returns the rate in bytes per second. */
export async function measureTcp(
  from: LabHost,
  to: LabHost,
  sizeBytes: number,
  { signal }: { signal?: AbortSignal } = {},
): Promise<number> {
  const server = await from.start(
    process.execPath,
    ['-e', sender, from.address, String(port), String(sizeBytes), String(writeBytes)],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  try {
    let ready = false
    server.stderr?.once('data', () => (ready = true))
    await eventually('the sender listens', async () => await Promise.resolve(ready ? true : undefined), {
      timeoutMs: startTimeoutMs,
      ...(signal && { signal }),
    })
    const { stdout } = await to.run(process.execPath, ['-e', receiver, from.address, String(port)], {
      ...(signal && { signal }),
    })
    const { bytes, ms } = JSON.parse(stdout.toString()) as { bytes: number; ms: number }
    return bytes / (ms / 1000)
  } finally {
    server.kill('SIGKILL')
  }
}
