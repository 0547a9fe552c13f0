import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { options } from '../../../node/config/options.ts'
import { ControlSocket, ownDirectory } from '../../../node/control/socket.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** Publishes a socket with a server of its own that listens until the test ends. */
async function publish(t: TestContext, path: string, temporaryPath = `${path}.new`): Promise<ControlSocket> {
  const socket = new ControlSocket(path, temporaryPath)
  const server: Server = createServer((connection) => connection.on('error', () => undefined).end())
  await socket.prepare()
  await socket.listen(server)
  t.after(() => server.close())
  await socket.publish()
  return socket
}

/** Leaves a socket behind on which nobody listens, as a daemon does that is killed. */
async function leaveSocket(path: string): Promise<void> {
  const server = createServer()
  server.listen(`${path}.old`)
  await once(server, 'listening')
  renameSync(`${path}.old`, path)
  server.close()
  await once(server, 'close')
}

test('a socket appears under its name once somebody listens on it', async (t) => {
  const path = join(temporaryDirectory(t), 'below', 'control.sock')
  const socket = await publish(t, path)
  assert.ok(lstatSync(path).isSocket())
  assert.equal(lstatSync(path).mode & 0o777, 0o600)
  assert.equal(existsSync(socket.temporaryPath), false)
  await socket.publish()
  assert.ok(lstatSync(path).isSocket())
  await socket.remove()
  assert.equal(existsSync(path), false)
})

test('a directory that is made for the socket is only this user’s, and one that stands there stays as it is', async (t) => {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  await publish(t, join(directory, 'control.sock'))
  assert.equal(lstatSync(directory).mode & 0o777, 0o755)
  await publish(t, join(directory, 'made/below', 'control.sock'))
  for (const made of ['made', 'made/below']) assert.equal(lstatSync(join(directory, made)).mode & 0o777, 0o700, made)
  assert.equal(dirname(options.control.fallback), ownDirectory, 'the default one is closed')
})

test('members of a group get to the socket where one is named, through a directory that is made for it', async (t) => {
  // A group that every user may give a file to.
  const group = process.getgid!()
  const path = join(temporaryDirectory(t), 'made', 'control.sock')
  const open = new ControlSocket(path, `${path}.new`, String(group))
  await open.prepare()
  await open.bind()
  for (const [name, wanted] of [
    [dirname(path), 0o710],
    [open.temporaryPath, 0o660],
  ] as const) {
    const { mode, gid } = lstatSync(name)
    assert.deepEqual([mode & 0o777, gid], [wanted, group], name)
  }
  await open.remove()
  await assert.rejects(new ControlSocket(path, `${path}.new`, 'no such group').prepare(), (error) =>
    isP2pfsError(error, 'invalid'),
  )
})

test('a socket that is taken over is for those who may use it now', async (t) => {
  const path = join(temporaryDirectory(t), 'control.sock')
  const group = process.getgid!()
  await publish(t, path)
  for (const [name, mode] of [
    [String(group), 0o660],
    ['', 0o600],
  ] as const) {
    assert.equal(await new ControlSocket(path, `${path}.next`, name).adopt(), true)
    assert.equal(lstatSync(path).mode & 0o777, mode)
  }
})

test('a socket that was bound for a daemon has no name until the daemon listens', async (t) => {
  const path = join(temporaryDirectory(t), 'control.sock')
  const socket = new ControlSocket(path)
  await socket.prepare()
  assert.ok((await socket.bind()) > 2)
  assert.ok(lstatSync(socket.temporaryPath).isSocket())
  assert.equal(existsSync(path), false)
  await socket.remove()
  assert.equal(existsSync(socket.temporaryPath), false)
})

test('a file or a directory at the path is a conflict, and stays', async (t) => {
  const directory = temporaryDirectory(t)
  const file = join(directory, 'file')
  writeFileSync(file, 'data')
  for (const path of [file, directory]) {
    const isConflict = (error: unknown): boolean => isP2pfsError(error, 'conflict') && error.message.includes(path)
    await assert.rejects(new ControlSocket(path, join(directory, 'new')).prepare(), isConflict)
  }
  assert.equal(readFileSync(file, 'utf8'), 'data')
})

test('a socket at which somebody answers is a conflict, and stays', async (t) => {
  const path = join(temporaryDirectory(t), 'control.sock')
  await publish(t, path)
  const { ino } = lstatSync(path)
  const isConflict = (error: unknown): boolean =>
    isP2pfsError(error, 'conflict') && error.message.includes(`answers at the control socket ${path}`)
  await assert.rejects(new ControlSocket(path, `${path}.other`).prepare(), isConflict)
  assert.equal(lstatSync(path).ino, ino)
})

test('of two daemons that start at once, one gets the socket', async (t) => {
  const path = join(temporaryDirectory(t), 'control.sock')
  const results = await Promise.allSettled([publish(t, path, `${path}.1`), publish(t, path, `${path}.2`)])
  const failures = results.filter((result) => result.status === 'rejected')
  assert.equal(failures.length, 1)
  assert.ok(isP2pfsError(failures[0]!.reason, 'conflict'))
})

test('a socket that nobody listens on any more is replaced', async (t) => {
  const path = join(temporaryDirectory(t), 'control.sock')
  await leaveSocket(path)
  const { ino } = lstatSync(path)
  await publish(t, path)
  assert.notEqual(lstatSync(path).ino, ino)
})

test('only the own socket is removed', async (t) => {
  const path = join(temporaryDirectory(t), 'control.sock')
  const first = await publish(t, path, `${path}.1`)
  rmSync(path)
  const second = await publish(t, path, `${path}.2`)
  await first.remove()
  assert.ok(lstatSync(path).isSocket())
  await second.remove()
  assert.equal(existsSync(path), false)
  writeFileSync(path, 'data')
  await second.remove()
  assert.equal(readFileSync(path, 'utf8'), 'data')
})

test('a path that cannot be a socket is invalid, with the reason', async (t) => {
  const directory = temporaryDirectory(t)
  writeFileSync(join(directory, 'file'), '')
  mkdirSync(join(directory, 'deep'))
  const cases: [string, RegExp][] = [
    [join(directory, 'x'.repeat(120)), /too long a path: a unix socket takes 107 bytes/],
    [join(directory, 'file', 'control.sock'), /cannot make the directory of the control socket .*file\/control\.sock/],
    ['/proc/nowhere/control.sock', /cannot make the directory of the control socket/],
  ]
  for (const [path, message] of cases) {
    await assert.rejects(
      new ControlSocket(path).prepare(),
      (error) => isP2pfsError(error, 'invalid') && message.test(error.message),
    )
  }
})
