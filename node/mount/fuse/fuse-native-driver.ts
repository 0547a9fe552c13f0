import { mkdir } from 'node:fs/promises'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import type { BlockImage } from './block-image.ts'
import type { FuseDriver, ReadHandler } from './driver.ts'
import { ReadCounters, type Served } from './read-counters.ts'
import { readThrough } from './read-through.ts'

/** What is used of the package fuse-native, which has no types of its own. */
interface FuseNative {
  new (
    mountPoint: string,
    operations: object,
    options: object,
  ): { mount: (done: (error: Error | null) => void) => void; unmount: (done: (error: Error | null) => void) => void }
  ENOENT: number
  EIO: number
}

type Reply = (status: number, value?: unknown) => void

const times = { mtime: new Date(0), atime: new Date(0), ctime: new Date(0) }

/** FUSE through libfuse, by the package fuse-native: for hosts where the daemon is not root. Its mounts end with the daemon. */
export class FuseNativeDriver implements FuseDriver {
  readonly #mountPoint: string
  readonly #log: Log
  readonly #images = new Map<string, BlockImage>()
  readonly #counters = new ReadCounters(ReadCounters.allocate(0), 0)

  constructor({ log }: { log: Log }, { mountPoint }: { mountPoint: string }) {
    this.#mountPoint = mountPoint
    this.#log = log
  }

  /** @throws unsupported where libfuse is not installed; unavailable where the mount fails */
  async start(handler: ReadHandler): Promise<void> {
    let Fuse: FuseNative
    try {
      // A name in a variable: the package is optional, and not there for the type checker.
      const name = 'fuse-native'
      Fuse = ((await import(name)) as { default: FuseNative }).default
    } catch (cause) {
      throw new P2pfsError(
        'unsupported',
        `fuse-native cannot be loaded: ${(cause as Error).message.split('\n')[0]}; install libfuse 2 (on Debian: apt-get install libfuse2 fuse)`,
        { cause },
      )
    }
    await mkdir(this.#mountPoint, { recursive: true })
    const fuse = new Fuse(this.#mountPoint, this.#operations(Fuse, handler), {
      force: true,
      mkdir: false,
      autoUnmount: true,
      kernelCache: true,
      name: 'p2pfs',
    })
    await new Promise<void>((resolve, reject) =>
      fuse.mount((error) =>
        error === null || error === undefined
          ? resolve()
          : reject(
              new P2pfsError('unavailable', `cannot mount FUSE on ${this.#mountPoint}: ${error.message}`, {
                cause: error,
              }),
            ),
      ),
    )
    this.#unmount = async () => await new Promise<void>((resolve) => fuse.unmount(() => resolve()))
  }

  #unmount: () => Promise<void> = async () => undefined

  async stop(): Promise<void> {
    await this.#unmount()
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

  #operations(Fuse: FuseNative, handler: ReadHandler): object {
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
        readThrough(image, offset, size, handler, this.#counters, new AbortController().signal).then(
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
