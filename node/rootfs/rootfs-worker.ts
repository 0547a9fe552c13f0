import { parentPort, workerData } from 'node:worker_threads'
import type { RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { writeRootfs } from './rootfs-writer.ts'
import {
  receiveLayerIndex,
  sendError,
  sendTable,
  type ChunkThreadSetup,
  type FromChunkThread,
  type SentLayerIndex,
  type SentTable,
  type ToChunkThread,
} from './thread/messages.ts'
import { ThreadSink } from './thread/thread-sink.ts'

export interface RootfsWorkerSetup {
  /** Lowest first. */
  layers: readonly SentLayerIndex[]
  format: RootfsFormat
  maxMetadataBytes: number
}

const { layers, format, maxMetadataBytes, files } = workerData as RootfsWorkerSetup & ChunkThreadSetup
const sink = new ThreadSink(files)
const send = (message: FromChunkThread<SentTable>): void => parentPort!.postMessage(message)

parentPort!.on('message', (message: ToChunkThread) => sink.handle(message))
writeRootfs(layers.map(receiveLayerIndex), format, sink, { maxMetadataBytes }).then(
  (table) => {
    sink.flush()
    send({ result: sendTable(table) })
  },
  (error: unknown) => send({ error: sendError(error) }),
)
