// A store at work, until it is killed: puts, writes from a thread's side, discards, reads and flushes at random. argv: its
// directory, the boot, and a seed. Each line of output is a fact: `durable DIGEST...`, `discarded DIGEST`.
import { writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkFileWriter } from '../../../node/base/chunk-file-writer.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { PowerLossCheck } from '../../../node/store/power-loss-check.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'
import { reserve } from '../../support/stores.ts'
import { chunkBytes, nobody } from './store-under-test.ts'

const [, , directory = '', bootId = '', seed = '0'] = process.argv
const { signal } = new AbortController()
const random = createRandom(Number(seed))
const say = (fact: string): void => void writeSync(1, `${fact}\n`)

const chunks = await ChunkStore.open(
  { log: silentLog, reserve },
  { directory, bootId, groupMs: 50 + random.below(400) },
)
const inventory = new Inventory({ chunks, region: nobody })
new PowerLossCheck({ inventory, log: silentLog }).start()
const writer = new ChunkFileWriter(inventory.writing)
/** Many enough that rounds leave something to each other, few enough for the disk (about 60 MiB). */
const maxChunks = 480
const here: Digest[] = [...inventory.digests()]
say('ready')

/** Does the next thing to a chunk that no other step works on. */
async function step(): Promise<void> {
  const chosen = here.length > maxChunks ? 90 : random.below(100)
  if (chosen < 70) {
    const bytes = chunkBytes(random.below(1 << 20))
    const digest = digestOf(bytes)
    if (here.includes(digest)) return
    if (random.below(2) === 0) await inventory.put(digest, bytes, 'peer')
    else if (!inventory.has(digest)) {
      const changedAtMs = writer.write(digest, bytes)
      await inventory.adopt([{ digest, lengthBytes: bytes.length, changedAtMs }], 'peer')
    }
    here.push(digest)
    say(`kept ${digest}`)
  } else if (chosen < 85) {
    const digest = here[random.below(here.length)]
    const bytes = digest === undefined ? undefined : await inventory.get(digest)
    if (bytes !== undefined && digestOf(bytes) !== digest) say(`wrong ${digest}`)
  } else if (chosen < 97) {
    const [digest] = here.splice(random.below(here.length), 1)
    if (digest === undefined) return
    say(`discarded ${digest}`)
    await inventory.discard(digest)
  } else if (chosen < 98) {
    const flushed = here.filter((digest) => inventory.has(digest))
    await inventory.flush({ signal })
    // Chunks that were discarded meanwhile are not promised.
    const there = new Set(here)
    say(`durable ${flushed.filter((digest) => there.has(digest)).join(' ')}`)
  } else await sleep(random.below(60))
}

await Promise.all(
  Array.from({ length: 4 }, async () => {
    for (;;) await step()
  }),
)
