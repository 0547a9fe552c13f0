import { parentPort, workerData } from 'node:worker_threads'
import { Bandwidth } from '../../base/bandwidth.ts'
import { giveWay } from './give-way.ts'
import { BulkSender } from './bulk-sender.ts'
import { ChunkFileReader } from './chunk-file-reader.ts'
import type { FromSender, SenderSetup, ToSender } from './thread-messages.ts'

const port = parentPort!
const { directory, mode, listen, upload } = workerData as SenderSetup
giveWay()
const report = (message: FromSender): void => port.postMessage(message)
const files = new ChunkFileReader({ onDamage: (digest) => report({ damaged: digest }) }, { directory })
const sender = new BulkSender(
  { read: (digest, target, offset) => files.read(digest, target, offset), report },
  { mode, upload: Bandwidth.attach(upload) },
)
port.on('message', (message: ToSender) => sender.handle(message))
sender.listen(listen)
