import { parentPort, workerData } from 'node:worker_threads'
import { BulkReceiver } from '../../../../node/peers/bulk/bulk-receiver.ts'
import type { ToReceiver } from '../../../../node/peers/bulk/thread-messages.ts'

/**
 * A receiving thread whose disk stands still: it takes a chunk when the test raises the number of those that it may
 * take.
 */
const allowed = new Int32Array(workerData as SharedArrayBuffer)
let kept = 0
const receiver = new BulkReceiver(
  {
    keep: () => {
      kept++
      for (let now = Atomics.load(allowed, 0); now < kept; now = Atomics.load(allowed, 0)) Atomics.wait(allowed, 0, now)
      return 1
    },
    report: (message) => parentPort!.postMessage(message),
  },
  { mode: 'tls' },
)
parentPort!.on('message', (message: ToReceiver) => receiver.handle(message))
