import { chmod, chown, link, lstat, stat, unlink } from 'node:fs/promises'
import * as net from 'node:net'
import { dirname, join } from 'node:path'
import { getSystemErrorMap } from 'node:util'
import { P2pfsError } from '../../protocol/errors.ts'
import { groupId } from '../base/group-id.ts'
import { makePrivateDirectory } from '../base/private-directory.ts'
import { systemError } from '../base/system-error.ts'

/** sockaddr_un of unix(7): 108 bytes, of which the last is zero. */
const maxPathBytes = 107
/** The directory of the default socket, which is for nothing else. */
export const ownDirectory = '/run/p2pfs'
/** Modes with and without a group that may connect, which takes the right to write. */
const modes = { own: { socket: 0o600 }, group: { socket: 0o660, directory: 0o710 } }
/** umask under which a socket is nobody's else, before anybody can connect to it. */
const privateUmask = 0o177

/**
 * Not documented, but the only way that Node has to bind a socket without taking its connections: the cluster module
 * uses it. Returns an error number if it fails.
 */
const { _createServerHandle: createServerHandle } = net as unknown as {
  _createServerHandle: (path: string, port: -1, addressType: -1) => { fd: number } | number
}

/**
 * The name of the control socket in the filesystem.
 *
 * A socket is bound to a temporary name, and gets its own once somebody listens: so a control socket that refuses
 * connections is always a leftover. Nothing but such a leftover is ever replaced or removed.
 */
export class ControlSocket {
  readonly path: string
  /** The name that the socket is bound to before it is published. */
  readonly temporaryPath: string
  readonly #group: string
  #groupId: number | undefined
  #inode: string | undefined

  /** @param group number or name of a group that may connect, which makes its members root in effect; empty for none */
  constructor(path: string, temporaryPath = join(dirname(path), `.${process.pid}`), group = '') {
    this.path = path
    this.temporaryPath = temporaryPath
    this.#group = group
  }

  /**
   * Makes the directory, and checks that the name can be taken. A directory that is made is only this user's, and so is
   * the default one; the group can pass through either. Another that stands there is left as it is.
   * @throws conflict if something is there that is in use or no socket; invalid if the path is not usable, or there is no
   * such group; unavailable for errors that may pass
   */
  async prepare(): Promise<void> {
    const longestPath = Math.max(...[this.path, this.temporaryPath].map((path) => Buffer.byteLength(path)))
    if (longestPath > maxPathBytes)
      throw new P2pfsError(
        'invalid',
        `the control socket ${this.path} has too long a path: a unix socket takes ${maxPathBytes} bytes; ` +
          'choose another --control',
      )
    await this.#prepareDirectory()
    await this.#isLeftover()
  }

  /** Binds the socket without taking its connections. @returns a descriptor, for a daemon that listens on it */
  async bind(): Promise<number> {
    const handle = withPrivateUmask(() => createServerHandle(this.temporaryPath, -1, -1))
    if (typeof handle === 'number')
      throw systemError(`cannot make the control socket ${this.path}`, systemErrorOf(handle))
    await this.#restrict(this.temporaryPath)
    return handle.fd
  }

  /**
   * Takes over a socket of this path that is bound and published, for whoever may use it now.
   * @returns false if the path has no such socket any more
   */
  async adopt(): Promise<boolean> {
    await unlink(this.temporaryPath).catch(ignoreMissing)
    const found = await lstat(this.path).catch(ignoreMissing)
    if (found?.isSocket() !== true || (await refusesConnections(this.path))) return false
    await this.#prepareDirectory()
    await this.#restrict(this.path)
    return true
  }

  /** Removes a socket on which nobody listens. */
  async removeLeftover(): Promise<void> {
    const found = await lstat(this.path).catch(() => undefined)
    if (found?.isSocket() === true && (await refusesConnections(this.path)))
      await unlink(this.path).catch(() => undefined)
  }

  /** Listens with a server of this process. */
  async listen(server: net.Server): Promise<void> {
    await listen(server, { path: this.temporaryPath }).catch((error: unknown) => {
      throw systemError(`cannot make the control socket ${this.path}`, error)
    })
    await this.#restrict(this.temporaryPath)
  }

  /**
   * Gives the socket its name, after somebody listens on it. Does nothing if it has its name already.
   * @throws conflict as {@link prepare}
   */
  async publish(): Promise<void> {
    const bound = await inodeOf(this.temporaryPath)
    if (bound === undefined) return
    if ((await inodeOf(this.path)) !== bound) {
      if (await this.#isLeftover()) await unlink(this.path).catch(ignoreMissing)
      try {
        // Unlike rename(2), link(2) never replaces what has come meanwhile.
        await link(this.temporaryPath, this.path)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw this.#inUse()
        throw systemError(`cannot make the control socket ${this.path}`, error)
      }
    }
    await unlink(this.temporaryPath).catch(ignoreMissing)
  }

  /** Removes the name, unless something else has it now. */
  async remove(): Promise<void> {
    await unlink(this.temporaryPath).catch(() => undefined)
    if (this.#inode !== undefined && (await inodeOf(this.path)) === this.#inode)
      await unlink(this.path).catch(() => undefined)
  }

  async #prepareDirectory(): Promise<void> {
    if (this.#group !== '') this.#groupId = await groupId(this.#group)
    try {
      const directory = dirname(this.path)
      const isThere = (await stat(directory).catch(ignoreMissing)) !== undefined
      if (!isThere || directory === ownDirectory) {
        await makePrivateDirectory(directory)
        if (this.#groupId !== undefined) await giveToGroup(directory, this.#groupId, modes.group.directory)
      }
      await unlink(this.temporaryPath).catch(ignoreMissing)
    } catch (error) {
      throw systemError(`cannot make the directory of the control socket ${this.path}`, error)
    }
  }

  async #restrict(path: string): Promise<void> {
    await chmod(path, modes.own.socket)
    if (this.#groupId !== undefined)
      await giveToGroup(path, this.#groupId, modes.group.socket).catch((error: unknown) => {
        throw systemError(`cannot give the control socket ${this.path} to the group ${this.#group}`, error)
      })
    this.#inode = await inodeOf(path)
  }

  /** Whether a socket is there on which nobody listens. @throws conflict if something else is there */
  async #isLeftover(): Promise<boolean> {
    const found = await lstat(this.path).catch(ignoreMissing)
    if (found === undefined) return false
    if (!found.isSocket()) {
      const what = found.isDirectory() ? 'a directory' : 'a file'
      throw new P2pfsError(
        'conflict',
        `cannot make the control socket: ${this.path} is ${what}, not a socket, and stays as it is; ` +
          `choose another --control, such as ${found.isDirectory() ? join(this.path, 'p2pfs.sock') : `${this.path}.sock`}`,
      )
    }
    if (!(await refusesConnections(this.path))) throw this.#inUse()
    return true
  }

  #inUse(): P2pfsError {
    return new P2pfsError(
      'conflict',
      `another program answers at the control socket ${this.path}; ` +
        'stop that p2pfs daemon first, or choose another --control',
    )
  }
}

/** Listens on a path, or on a descriptor of a socket that is bound. */
export async function listen(server: net.Server, where: { path: string } | { fd: number }): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    // A socket gets its mode at once, in this call.
    withPrivateUmask(() =>
      server.listen(where, () => {
        server.off('error', reject)
        resolve()
      }),
    )
  })
}

function withPrivateUmask<T>(make: () => T): T {
  const umask = process.umask(privateUmask)
  try {
    return make()
  } finally {
    process.umask(umask)
  }
}

/** In this order: no other group has the rights in between. */
async function giveToGroup(path: string, gid: number, mode: number): Promise<void> {
  await chown(path, -1, gid)
  await chmod(path, mode)
}

async function refusesConnections(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const probe = net.connect({ path })
    probe.once('connect', () => {
      probe.destroy()
      resolve(false)
    })
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'))
  })
}

async function inodeOf(path: string): Promise<string | undefined> {
  const found = await lstat(path, { bigint: true }).catch(ignoreMissing)
  return found === undefined ? undefined : `${found.dev}:${found.ino}`
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT') return undefined
  throw error
}

function systemErrorOf(errorNumber: number): Error {
  const [code, message] = getSystemErrorMap().get(errorNumber) ?? ['', `error ${errorNumber}`]
  return Object.assign(new Error(message), { code, syscall: 'bind' })
}
