import { userInfo } from 'node:os'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import { makeDirectory } from '../../base/make-directory.ts'
import type { BlockImage } from './block-image.ts'
import type { FuseDriver, OnMark, OnMiss } from './driver.ts'
import { loadLibfuse, mayAllowOthers, unmountFuse, type FuseNative } from './libfuse.ts'
import { ReadCounters, type Served } from './read-counters.ts'
import { readThrough } from './read-through.ts'

type Reply = (status: number, value?: unknown) => void

const times = { mtime: new Date(0), atime: new Date(0), ctime: new Date(0) }

/** FUSE through libfuse, by the package fuse-native, for a daemon that is not root. Its mounts end with the daemon. */
export class FuseNativeDriver implements FuseDriver {
  readonly #mountPoint: string
  readonly #onMiss: OnMiss
  readonly #log: Log
  readonly #images = new Map<string, BlockImage>()
  readonly #counters = new ReadCounters(ReadCounters.allocate(0), 0)

  constructor({ onMiss, log }: { onMiss: OnMiss; onMark: OnMark; log: Log }, { mountPoint }: { mountPoint: string }) {
    this.#mountPoint = mountPoint
    this.#onMiss = onMiss
    this.#log = log
  }

  /** @throws unsupported, with what to do, if this host or user cannot mount; unavailable if the mount fails */
  async start(): Promise<void> {
    const Fuse = await loadLibfuse()
    const mountPoint = this.#mountPoint
    if (await unmountFuse(mountPoint))
      this.#log.warn('mount removed', { directory: mountPoint, why: 'left by a daemon that is gone' })
    await makeDirectory(mountPoint, { mode: 0o755 })
    const allowOther = await mayAllowOthers()
    if (!allowOther)
      this.#log.warn(
        'only the user of the daemon can read its mounts; user_allow_other in /etc/fuse.conf lets others',
        {
          user: userInfo().username,
        },
      )
    const fuse = new Fuse(mountPoint, this.#operations(Fuse), {
      force: true,
      mkdir: false,
      allowOther,
      autoUnmount: true,
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
    this.#images.set(image.name, image)
  }

  async remove(name: string): Promise<void> {
    this.#images.delete(name)
  }

  counters(): { served: Served } {
    return { served: this.#counters.totals() }
  }

  #find(path: string): BlockImage | undefined {
    const [, name = '', file, more] = path.split('/')
    return file === 'rootfs.img' && more === undefined ? this.#images.get(name) : undefined
  }

  #operations(Fuse: FuseNative): object {
    const directory = { ...times, mode: 0o40555, size: 0, nlink: 2, uid: 0, gid: 0 }
    return {
      readdir: (path: string, reply: Reply) => {
        if (path === '/') return reply(0, [...this.#images.keys()])
        return this.#images.has(path.slice(1)) ? reply(0, ['rootfs.img']) : reply(Fuse.ENOENT)
      },
      getattr: (path: string, reply: Reply) => {
        const image = this.#find(path)
        if (image !== undefined)
          return reply(0, { ...times, mode: 0o100444, size: image.sizeBytes, nlink: 1, uid: 0, gid: 0 })
        return path === '/' || this.#images.has(path.slice(1)) ? reply(0, directory) : reply(Fuse.ENOENT)
      },
      open: (path: string, _flags: number, reply: Reply) =>
        this.#find(path) === undefined ? reply(Fuse.ENOENT) : reply(0, 0),
      read: (
        path: string,
        _fd: number,
        buffer: Buffer,
        length: number,
        offset: number,
        reply: (result: number) => void,
      ) => {
        const image = this.#find(path)
        if (image === undefined) return reply(Fuse.ENOENT)
        const size = Math.max(0, Math.min(length, image.sizeBytes - offset))
        if (size === 0) return reply(0)
        readThrough(image, offset, size, this.#onMiss, this.#counters, new AbortController().signal).then(
          (pieces) => {
            let at = 0
            for (const piece of pieces) {
              buffer.set(piece, at)
              at += piece.length
            }
            reply(at)
          },
          (error: unknown) => {
            this.#log.warn('read failed: nobody delivers its data', { error, rootfs: image.name, offset })
            reply(Fuse.EIO)
          },
        )
      },
    }
  }
}
