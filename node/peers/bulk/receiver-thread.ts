import { setPriority } from 'node:os'
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { WholeFileWriter } from '../../base/whole-file-writer.ts'
import { bulkNiceness } from './bulk-limits.ts'
import { BulkReceiver } from './bulk-receiver.ts'
import type { ReceiverSetup, ToReceiver } from './thread-messages.ts'

const port = parentPort!
const { directory, mode } = workerData as ReceiverSetup
// On Linux this is the thread's own priority.
setPriority(0, bulkNiceness)
const files = new WholeFileWriter({ temporary: join(directory, 'incoming') })
const receiver = new BulkReceiver(
  {
    keep: (digest, bytes) => files.write(chunkFile(directory, digest), bytes),
    report: (message) => port.postMessage(message),
  },
  { mode },
)
port.on('message', (message: ToReceiver) => receiver.handle(message))
