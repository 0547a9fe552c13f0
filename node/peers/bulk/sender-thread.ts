import { setPriority } from 'node:os'
import { parentPort, workerData } from 'node:worker_threads'
import { bulkNiceness } from './bulk-limits.ts'
import { BulkSender } from './bulk-sender.ts'
import { ChunkFileReader } from './chunk-file-reader.ts'
import type { FromSender, SenderSetup, ToSender } from './thread-messages.ts'

const port = parentPort!
const { directory, mode, listen } = workerData as SenderSetup
// On Linux this is the thread's own priority.
setPriority(0, bulkNiceness)
const report = (message: FromSender): void => port.postMessage(message)
const files = new ChunkFileReader({ onDamage: (digest) => report({ damaged: digest }) }, { directory })
const sender = new BulkSender(
  { read: (digest, target, offset) => files.read(digest, target, offset), report },
  { mode },
)
port.on('message', (message: ToSender) => sender.handle(message))
sender.listen(listen)
