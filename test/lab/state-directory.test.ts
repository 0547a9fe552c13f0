import assert from 'node:assert/strict'
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { DaemonProcess } from './daemon-process.ts'

const stranger = 65_534
const modeOf = (path: string): number => statSync(path).mode & 0o777

test('state directories and the private key are closed to others, whatever stood there and whatever the umask', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const state = join(daemon.directory, 'state')
  const source = daemon.target('source')
  writeFileSync(join(source, 'file'), 'x')
  await daemon.json('import', source, 'app')
  await daemon.killAll()
  const directories = ['', 'chunks', 'catalog', 'trees', 'writable', 'scratch', 'templates'].map((name) =>
    join(state, name),
  )
  for (const directory of directories) chmodSync(directory, 0o777)
  chmodSync(join(state, 'identity.key'), 0o644)
  const umask = process.umask(0)
  try {
    await daemon.startAgain()
  } finally {
    process.umask(umask)
  }
  for (const directory of directories) assert.equal(modeOf(directory), 0o700, directory)
  assert.equal(modeOf(join(state, 'identity.key')), 0o600)
  assert.equal(modeOf(daemon.control), 0o600)
  assert.match(daemon.log, /"state directory was open to other users; it is closed"/)
  assert.match(daemon.log, /"directory was open to other users; it is closed".*"mode":"777"/)
  assert.match(
    daemon.log,
    /"private key of this host was open to other users, who may have it; remove it to get a new one"/,
  )
  await daemon.json('mount', 'local:app', daemon.target('tree'), '--as', 'tree', '--writable', '--size', '16MiB')
  await daemon.json('mount', 'local:app', daemon.target('drive'), '--scratch', '16MiB')
  for (const name of readdirSync(state)) {
    const found = lstatSync(join(state, name))
    // The root of the FUSE filesystem has a mode of its own.
    if (name !== 'mnt' && found.isDirectory()) assert.equal(found.mode & 0o777, 0o700, name)
  }
})

test('a state directory of another user is refused, and so is an open one that has other things in it', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const state = join(daemon.directory, 'state')
  await daemon.killAll()
  chownSync(state, stranger, stranger)
  await assert.rejects(daemon.startAgain(), /cannot use the state directory .* belongs to user 65534/)
  chownSync(state, 0, 0)
  chmodSync(state, 0o755)
  mkdirSync(join(state, 'letters'))
  await assert.rejects(daemon.startAgain(), /has more than the state of p2pfs in it \(letters\); .* chmod 700/)
  assert.equal(modeOf(state), 0o755, 'it stays as it is')
  chmodSync(state, 0o700)
  await daemon.startAgain()
})

test('what is in the state directory that is another user’s is refused', async (t) => {
  const daemon = await DaemonProcess.start(t)
  await daemon.killAll()
  chownSync(join(daemon.directory, 'state/catalog'), stranger, stranger)
  await assert.rejects(daemon.startAgain(), /state\/catalog belongs to user 65534/)
  chownSync(join(daemon.directory, 'state/catalog'), 0, 0)
  await daemon.startAgain()
})
