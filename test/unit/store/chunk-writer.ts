// Writes chunks until it is killed: argv is the chunk directory and a seed.
import { digestOf } from '../../../protocol/digest.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { createRandom } from '../../support/random.ts'

const [, , directory = '', seed = '0'] = process.argv
const reserve = { isFull: false, release: async (): Promise<void> => undefined }
const store = await ChunkStore.open({ log: silentLog, reserve }, { directory })
const random = createRandom(Number(seed) + 1000)
const template = random.bytes(64 * 1024)
for (let written = 0; ; written += 4) {
  const batch = Array.from({ length: 4 }, (_, i) => {
    const bytes = Buffer.from(template)
    bytes.writeUInt32LE(written + i, 0)
    return bytes
  })
  await Promise.all(batch.map(async (bytes) => await store.put(digestOf(bytes), bytes)))
  if (written === 0) process.stdout.write('writing\n')
}
