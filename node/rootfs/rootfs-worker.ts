import { parentPort, workerData } from 'node:worker_threads'
import type { RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { writeRootfs } from './rootfs-writer.ts'
import {
  receiveLayerIndex,
  sendError,
  sendTable,
  type ChunkStored,
  type FromChunkThread,
  type SentLayerIndex,
  type SentTable,
} from './thread/messages.ts'
import { RemoteSink } from './thread/remote-sink.ts'

export interface RootfsWorkerSetup {
  /** Lowest first. */
  layers: readonly SentLayerIndex[]
  format: RootfsFormat
  maxMetadataBytes: number
}

const { layers, format, maxMetadataBytes } = workerData as RootfsWorkerSetup
const sink = new RemoteSink()
const send = (message: FromChunkThread<SentTable>): void => parentPort!.postMessage(message)

parentPort!.on('message', (message: ChunkStored) => sink.onStored(message))
writeRootfs(layers.map(receiveLayerIndex), format, sink, { maxMetadataBytes }).then(
  (table) => send({ result: sendTable(table) }),
  (error: unknown) => send({ error: sendError(error) }),
)
