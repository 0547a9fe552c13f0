import { parentPort, workerData } from 'node:worker_threads'

// Answers with what it was started with, and crashes when it is told to.
parentPort!.on('message', (message: string) => {
  if (message === 'crash') throw new Error('as the test wanted')
  parentPort!.postMessage({ message, workerData: workerData as unknown })
})
