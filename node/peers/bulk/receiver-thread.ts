import { parentPort, workerData } from 'node:worker_threads'
import { ChunkFileWriter } from '../../base/chunk-file-writer.ts'
import { giveWay } from './give-way.ts'
import { BulkReceiver } from './bulk-receiver.ts'
import type { ReceiverSetup, ToReceiver } from './thread-messages.ts'

const port = parentPort!
const { writing, mode } = workerData as ReceiverSetup
giveWay()
const files = new ChunkFileWriter(writing)
const receiver = new BulkReceiver(
  {
    keep: (digest, bytes) => files.write(digest, bytes),
    report: (message) => port.postMessage(message),
  },
  { mode },
)
port.on('message', (message: ToReceiver) => receiver.handle(message))
