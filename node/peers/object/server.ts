import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import type { Stream } from '@libp2p/interface'
import { encodeBootProfile } from '../../../protocol/boot-profile.ts'
import { encodeImageRecord } from '../../../protocol/image-record.ts'
import {
  encodeObjectAnswer,
  maxObjectRequestBytes,
  parseObjectRequest,
  type ObjectRequest,
} from '../../../protocol/messages/object.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { ServedData } from '../served-data.ts'

const compress = promisify(zstdCompress)

type ServedObjects = Pick<
  ServedData,
  'imageRecord' | 'rootfsManifest' | 'layerIndex' | 'blobMap' | 'bootProfile' | 'isImporting'
>

/**
 * Answers the one request of a stream.
 * @throws invalid where the peer breaks the protocol; unavailable where the stream breaks
 */
export async function serveObject(stream: Stream, served: ServedObjects): Promise<void> {
  for await (const message of readFrames(stream, maxObjectRequestBytes)) {
    await writeFrame(stream, [encodeObjectAnswer(await find(parseObjectRequest(message), served))])
    await stream.close()
    return
  }
}

async function find(request: ObjectRequest, served: ServedObjects): Promise<Uint8Array | undefined> {
  switch (request.kind) {
    case 'image': {
      const record = await served.imageRecord(request)
      return record === undefined ? undefined : encodeImageRecord(record)
    }
    case 'rootfs':
      return await served.rootfsManifest(request.digest)
    case 'map':
      return await served.blobMap(request.digest)
    case 'profile': {
      const profile = await served.bootProfile(request)
      return profile === undefined ? undefined : encodeBootProfile(profile)
    }
    case 'import':
      return served.isImporting(request.digest) ? new Uint8Array(0) : undefined
    case 'layer': {
      const bytes = await served.layerIndex(request.diffId)
      return bytes === undefined ? undefined : await compress(bytes)
    }
  }
}
