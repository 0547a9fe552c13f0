import { yamux, type YamuxMuxerInit } from '@chainsafe/libp2p-yamux'
import { StreamState, type YamuxStream } from '@chainsafe/libp2p-yamux/stream'
import type { StreamMuxer, StreamMuxerFactory } from '@libp2p/interface'

/** A stream's window is opened again when so much of it has been used. */
const usedShare = 0.25

/**
 * Yamux that opens the window of a stream again when a quarter of it has been used. libp2p's does so for each message
 * that has come: a message of its own, encrypted and written by itself.
 * @param windowBytes the window of each stream, from its beginning on
 */
export function regionYamux(windowBytes: number, init: YamuxMuxerInit): () => StreamMuxerFactory {
  const options = {
    ...init,
    streamOptions: { ...init.streamOptions, initialStreamWindowSize: windowBytes, maxStreamWindowSize: windowBytes },
  }
  return () => {
    const factory = yamux(options)()
    const createStreamMuxer = factory.createStreamMuxer.bind(factory)
    factory.createStreamMuxer = (connection) => {
      const muxer = createStreamMuxer(connection)
      openLazily(muxer, windowBytes)
      return muxer
    }
    return factory
  }
}

/** The method of libp2p's muxer that makes its streams. A version that has another name fails at once. */
const makesStreams = '_newStream'
type NewStream = (id: number, state: StreamState, direction: 'inbound' | 'outbound') => YamuxStream

function openLazily(muxer: StreamMuxer, windowBytes: number): void {
  const inside = muxer as unknown as Record<typeof makesStreams, NewStream>
  const newStream = inside[makesStreams].bind(muxer)
  inside[makesStreams] = (...args) => {
    const stream = newStream(...args)
    const inner = stream as unknown as { recvWindowCapacity: number; sendWindowUpdate: () => void }
    if (typeof inner.recvWindowCapacity !== 'number')
      throw new TypeError("libp2p's yamux stream does not tell its window")
    const update = inner.sendWindowUpdate.bind(stream)
    inner.sendWindowUpdate = () => {
      // One that is not established says with it that it is.
      const isDue = inner.recvWindowCapacity <= windowBytes * (1 - usedShare)
      if (isDue || stream.state !== StreamState.Established) update()
    }
    return stream
  }
}
