import { userInfo } from 'node:os'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import { makePrivateDirectory } from '../../base/private-directory.ts'
import type { BlockImage } from './block-image.ts'
import type { FuseDriver, ReadHandler } from './driver.ts'
import { imageFile, ImageNodes, type ServedImage } from './image-nodes.ts'
import { loadLibfuse, mayAllowOthers, unmountFuse, type FuseNative } from './libfuse.ts'
import { ReadCounters, type Served } from './read-counters.ts'
import { readThrough } from './read-through.ts'

type Reply = (status: number, value?: unknown) => void

const times = { mtime: new Date(0), atime: new Date(0), ctime: new Date(0) }

/**
 * FUSE through libfuse, by the package fuse-native, for a daemon that is not root. Its mounts end with the daemon. Only
 * the user of the daemon reads them, and root where fuse.conf(5) allows that: the kernel or libfuse refuses all others.
 */
export class FuseNativeDriver implements FuseDriver {
  readonly #mountPoint: string
  readonly #log: Log
  readonly #nodes = new ImageNodes()
  /** How many files of an image are open. */
  readonly #opened = new Map<string, number>()
  readonly #counters = new ReadCounters(ReadCounters.allocate(0), 0)

  constructor({ log }: { log: Log }, { mountPoint }: { mountPoint: string }) {
    this.#mountPoint = mountPoint
    this.#log = log
  }

  /** @throws unsupported, with what to do, if this host or user cannot mount; unavailable if the mount fails */
  async start(handler: ReadHandler): Promise<void> {
    const Fuse = await loadLibfuse()
    const mountPoint = this.#mountPoint
    if (await unmountFuse(mountPoint))
      this.#log.warn('mount removed', { directory: mountPoint, why: 'left by a daemon that is gone' })
    await makePrivateDirectory(mountPoint)
    const allowRoot = await mayAllowOthers()
    if (!allowRoot)
      this.#log.warn(
        'only the user of the daemon can read its mounts, not root; user_allow_other in /etc/fuse.conf lets root',
        { user: userInfo().username },
      )
    const fuse = new Fuse(mountPoint, this.#operations(Fuse, handler), {
      force: true,
      mkdir: false,
      // Not allow_other, which lets every user in.
      allowRoot,
      autoUnmount: true,
      // Reads have a deadline of their own, which is longer than that of the package.
      timeout: false,
      kernelCache: true,
      name: 'p2pfs',
    })
    await new Promise<void>((resolve, reject) =>
      fuse.mount((error) => {
        if (!(error instanceof Error)) return resolve()
        const message = `cannot mount FUSE on ${mountPoint}: ${error.message}; the lines of fusermount above may say why`
        return reject(new P2pfsError('unavailable', message, { cause: error }))
      }),
    )
  }

  async stop(): Promise<void> {
    await unmountFuse(this.#mountPoint)
  }

  async add(image: BlockImage): Promise<void> {
    this.#nodes.add(image)
  }

  /** Mounts with owners are refused by the placement of this driver. */
  setOwners(): void {
    // Nothing to do.
  }

  async remove(name: string): Promise<boolean> {
    const served = this.#nodes.named(name)
    if (served !== undefined) served.isHidden = true
    if (this.#opened.has(name)) return false
    this.#nodes.delete(name)
    return true
  }

  counters(): { served: Served; errors: number } {
    return this.#counters.totals()
  }

  /** The image whose file has this path. */
  #find(path: string): ServedImage | undefined {
    const [, name = '', file, more] = path.split('/')
    return file === imageFile && more === undefined ? this.#nodes.named(name) : undefined
  }

  #isDirectory(path: string): boolean {
    return path === '/' || this.#nodes.named(path.slice(1)) !== undefined
  }

  /** A file of the image is closed. */
  #release({ image: { name }, isHidden }: ServedImage, handler: ReadHandler): void {
    const left = (this.#opened.get(name) ?? 1) - 1
    if (left > 0) return void this.#opened.set(name, left)
    this.#opened.delete(name)
    if (!isHidden) return
    this.#nodes.delete(name)
    handler.dropped(name)
  }

  #operations(Fuse: FuseNative, handler: ReadHandler): object {
    const owner = { uid: userInfo().uid, gid: userInfo().gid }
    const directory = { ...times, mode: 0o40555, size: 0, nlink: 2, ...owner }
    return {
      readdir: (path: string, reply: Reply) => {
        if (path === '/') return reply(0, this.#nodes.shown())
        return this.#isDirectory(path) ? reply(0, [imageFile]) : reply(Fuse.ENOENT)
      },
      getattr: (path: string, reply: Reply) => {
        const size = this.#find(path)?.image.sizeBytes
        if (size !== undefined) return reply(0, { ...times, mode: 0o100400, size, nlink: 1, ...owner })
        return this.#isDirectory(path) ? reply(0, directory) : reply(Fuse.ENOENT)
      },
      open: (path: string, _flags: number, reply: Reply) => {
        const name = this.#find(path)?.image.name
        if (name === undefined) return reply(Fuse.ENOENT)
        this.#opened.set(name, (this.#opened.get(name) ?? 0) + 1)
        reply(0, 0)
      },
      release: (path: string, _fd: number, reply: Reply) => {
        const served = this.#find(path)
        if (served !== undefined) this.#release(served, handler)
        reply(0)
      },
      read: (
        path: string,
        _fd: number,
        buffer: Buffer,
        length: number,
        offset: number,
        reply: (result: number) => void,
      ) => {
        const served = this.#find(path)
        if (served === undefined) return reply(Fuse.ENOENT)
        const { image } = served
        const size = Math.max(0, Math.min(length, image.sizeBytes - offset))
        if (size === 0) return reply(0)
        readThrough(served, { offset, size }, handler, this.#counters, new AbortController().signal).then(
          (pieces) => {
            let filled = 0
            for (const piece of pieces) {
              buffer.set(piece, filled)
              filled += piece.length
            }
            reply(filled)
          },
          (error: unknown) => {
            this.#counters.countError()
            this.#log.warn('read failed: nobody delivers its data', { error, rootfs: `sha256:${image.name}`, offset })
            reply(Fuse.EIO)
          },
        )
      },
    }
  }
}
