import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { run } from '../../../netlab/hosts/process.ts'
import { silentLog } from '../../../node/base/log.ts'
import { createBlockImage, type BlockImage } from '../../../node/mount/fuse/block-image.ts'
import { DevFuseDriver } from '../../../node/mount/fuse/dev-fuse-driver.ts'
import type { FuseDriver, ReadHandler } from '../../../node/mount/fuse/driver.ts'
import { FuseNativeDriver } from '../../../node/mount/fuse/fuse-native-driver.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { eventually } from '../../support/deadline.ts'
import { createRandom } from '../../support/random.ts'

/** A driver that serves images. Its disposal ends the mount and removes its files. */
interface ServedMount extends AsyncDisposable {
  driver: FuseDriver
  mountPoint: string
  chunkDirectory: string
  /** Names of the images that the driver told to be dropped. */
  dropped: string[]
}

const pageBytes = 4096
/** libfuse lets the kernel keep a name for a second. */
const forgetTimeoutMs = 10_000

type OnMiss = ReadHandler['miss']

/** Makes a driver on `DIRECTORY/mnt`, maybe as one that another has served before. It defers its end to the stack. */
type OpenDriver = (stack: AsyncDisposableStack, directory: string) => Promise<FuseDriver>

const onDevFuse =
  ({ resumed }: { resumed: boolean }): OpenDriver =>
  async (stack, directory) => {
    const mountPoint = join(directory, 'mnt')
    await mkdir(mountPoint)
    // It stays open: the workers read from it until the mount is gone.
    const fd = openSync('/dev/fuse', 'r+')
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other,ro'
    const mount = spawn('mount', ['-i', '-t', 'fuse.p2pfs', '-o', options, 'p2pfs-test', mountPoint], {
      stdio: ['ignore', 'ignore', 'inherit', fd],
    })
    assert.deepEqual(await once(mount, 'exit'), [0, null])
    stack.defer(async () => void (await run('umount', [mountPoint])))
    const parts = { fd, resumed, log: silentLog, lost: () => undefined }
    return new DevFuseDriver({ ...parts, chunkDirectory: join(directory, 'chunks') }, { workers: 2 })
  }

const kinds: Record<string, OpenDriver> = {
  'on /dev/fuse': onDevFuse({ resumed: false }),
  'of fuse-native': async (stack, directory) => {
    const driver = new FuseNativeDriver({ log: silentLog }, { mountPoint: join(directory, 'mnt') })
    stack.defer(async () => await driver.stop())
    return driver
  },
}

/** An image of random bytes in chunks of several sizes, in a metadata segment and two layers. */
class TestImage {
  readonly bytes: Buffer
  readonly block: BlockImage
  readonly #chunks: Buffer[]

  constructor(seed: number) {
    const random = createRandom(seed)
    const segments = [
      [2, 1],
      [1, 17, 64],
      [64, 3],
    ].map((sizes) => sizes.map((pages) => random.bytes(pages * pageBytes)))
    const [metadata, ...layers] = segments.map(
      (chunks) =>
        new ChunkTable(
          chunks.map(({ length }) => length),
          Buffer.concat(chunks.map((chunk) => digestToBytes(digestOf(chunk)))),
        ),
    )
    this.#chunks = segments.flat()
    this.bytes = Buffer.concat(this.#chunks)
    const described = layers.map((chunks) => ({ diffId: chunks.id, chunks }))
    this.block = createBlockImage(
      { format: 'ext4', metadata: metadata!, layers: described, config: '{}' },
      digestOf(this.bytes),
    )
  }

  path(mountPoint: string): string {
    return join(mountPoint, this.block.name, 'rootfs.img')
  }

  chunk(index: number): Buffer {
    return this.#chunks[index]!
  }

  /** Writes every second chunk to its file, as a host has it that has a part of an image. */
  writeHalf(chunkDirectory: string): void {
    for (const chunk of this.#chunks.filter((_, index) => index % 2 === 0)) {
      const file = chunkFile(chunkDirectory, digestOf(chunk))
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, chunk)
    }
  }
}

/** Reads of the mount must be asynchronous, because the driver answers in this process. */
async function serve(openDriver: OpenDriver, onMiss: OnMiss, ...images: TestImage[]): Promise<ServedMount> {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'p2pfs-test-'))
  stack.defer(async () => await rm(directory, { recursive: true }))
  const driver = await openDriver(stack, directory)
  const dropped: string[] = []
  await driver.start({
    miss: onMiss,
    reachedTrigger: () => undefined,
    reopen: async () => undefined,
    dropped: (name) => void dropped.push(name),
  })
  for (const { block } of images) await driver.add(block)
  const end = stack.move()
  return {
    driver,
    mountPoint: join(directory, 'mnt'),
    chunkDirectory: join(directory, 'chunks'),
    dropped,
    [Symbol.asyncDispose]: async () => await end.disposeAsync(),
  }
}

const handlerOf =
  (...images: TestImage[]): OnMiss =>
  async (name, index) =>
    images.find(({ block }) => block.name === name)!.chunk(index)

for (const [kind, openDriver] of Object.entries(kinds)) {
  test(`the driver ${kind} serves images side by side, whole`, async () => {
    const images = [new TestImage(1), new TestImage(2)]
    await using served = await serve(openDriver, handlerOf(...images), ...images)
    const { driver, mountPoint, chunkDirectory } = served
    images[0]!.writeHalf(chunkDirectory)
    assert.deepEqual((await readdir(mountPoint)).toSorted(), images.map(({ block }) => block.name).toSorted())
    for (const image of images) {
      assert.equal((await stat(image.path(mountPoint))).size, image.bytes.length)
      assert.ok(image.bytes.equals(await readFile(image.path(mountPoint))))
    }
    const { local, peer, registry } = driver.counters().served
    const servedBytes = local.bytes + peer.bytes + registry.bytes
    assert.ok(servedBytes >= images[0]!.bytes.length + images[1]!.bytes.length, `${servedBytes} bytes served`)
    await assert.rejects(stat(join(mountPoint, '0'.repeat(64))), { code: 'ENOENT' })
    await assert.rejects(stat(join(mountPoint, images[0]!.block.name, 'absent')), { code: 'ENOENT' })
    await assert.rejects(async () => {
      await using file = await open(images[0]!.path(mountPoint), 'r+')
      await file.write('x')
    })
  })

  test(`the driver ${kind} serves any part, across chunks, at the end and past the end`, async () => {
    const image = new TestImage(3)
    await using served = await serve(openDriver, handlerOf(image), image)
    const { mountPoint, chunkDirectory } = served
    image.writeHalf(chunkDirectory)
    await using file = await open(image.path(mountPoint))
    const sizeBytes = image.bytes.length
    const random = createRandom(4)
    const parts = Array.from({ length: 60 }, () => [random.below(sizeBytes), 1 + random.below(400_000)] as const)
    for (const [offset, length] of [
      ...parts,
      [sizeBytes - 10, 100],
      [sizeBytes, 10],
      [sizeBytes + 5000, 10],
    ] as const) {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset)
      const expected = image.bytes.subarray(offset, offset + length)
      assert.ok(expected.equals(buffer.subarray(0, bytesRead)), `${length} bytes at ${offset}`)
    }
  })

  test(`the driver ${kind} asks for a chunk that is not here by image and number`, async () => {
    const image = new TestImage(5)
    const asked: string[] = []
    const onMiss: OnMiss = async (name, index, options) => {
      asked.push(`${name} ${index}`)
      return await handlerOf(image)(name, index, options)
    }
    await using served = await serve(openDriver, onMiss, image)
    const { mountPoint } = served
    await using file = await open(image.path(mountPoint))
    const lastChunk = image.block.state.byteLength - 1
    await file.read(Buffer.alloc(10), 0, 10, image.bytes.length - 10)
    assert.ok(asked.includes(`${image.block.name} ${lastChunk}`), asked.join(', '))
  })

  test(`a read through the driver ${kind} fails with EIO if nobody delivers, and the next one works`, async () => {
    const image = new TestImage(6)
    let isAway = true
    const onMiss: OnMiss = async (...request) => {
      if (isAway) throw new P2pfsError('unavailable', 'nobody has it')
      return await handlerOf(image)(...request)
    }
    await using served = await serve(openDriver, onMiss, image)
    const { mountPoint } = served
    await assert.rejects(readFile(image.path(mountPoint)), { code: 'EIO' })
    isAway = false
    assert.ok(image.bytes.equals(await readFile(image.path(mountPoint))))
  })

  test(`the driver ${kind} serves a removed image to those who have it open, and hides it from others`, async () => {
    const [kept, removed] = [new TestImage(7), new TestImage(8)]
    await using served = await serve(openDriver, handlerOf(kept, removed), kept, removed)
    const { driver, mountPoint, dropped } = served
    {
      await using file = await open(removed.path(mountPoint))
      assert.equal(await driver.remove(removed.block.name), false)
      assert.deepEqual(await readdir(mountPoint), [kept.block.name])
      const end = removed.bytes.subarray(-pageBytes)
      const { buffer } = await file.read(Buffer.alloc(pageBytes), 0, pageBytes, removed.bytes.length - pageBytes)
      assert.ok(end.equals(buffer))
      assert.equal(dropped.length, 0)
    }
    // The kernel keeps an image of whose name it knows until it needs the memory.
    await eventually(
      'the image is dropped',
      async () => {
        await writeFile('/proc/sys/vm/drop_caches', '2')
        return dropped.includes(removed.block.name) || undefined
      },
      { timeoutMs: forgetTimeoutMs },
    )
    await assert.rejects(stat(removed.path(mountPoint)), { code: 'ENOENT' })
    assert.ok(kept.bytes.equals(await readFile(kept.path(mountPoint))))
  })
}

test('a driver that has taken over serves a removed image as long as the kernel has it, and no longer', async () => {
  const [unread, read] = [new TestImage(9), new TestImage(10)]
  await using served = await serve(onDevFuse({ resumed: true }), handlerOf(unread, read), unread, read)
  const { driver, mountPoint } = served
  assert.equal(await driver.remove(unread.block.name), true, 'the kernel has never asked for it')
  {
    await using file = await open(read.path(mountPoint))
    assert.equal(await driver.remove(read.block.name), false)
    assert.equal((await file.stat()).size, read.bytes.length)
  }
  assert.deepEqual(await readdir(mountPoint), [])
})

// The thread of libfuse, like the workers, does not end before the process.
after(() => void setTimeout(() => process.exit(), 100).unref())
