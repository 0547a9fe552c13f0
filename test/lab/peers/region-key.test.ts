import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { eventually } from '../../support/deadline.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { DaemonProcess } from '../daemon-process.ts'

const program = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))
/** For a busy machine. */
const patience = { timeoutMs: 60_000 }

function makeKey(): string {
  return execFileSync(program, ['keygen'], { encoding: 'utf8' })
}

async function freeAddress(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return `/ip4/127.0.0.1/tcp/${port}`
}

async function peersOf(daemon: DaemonProcess): Promise<number> {
  return (await daemon.status()).peers.length
}

/** Replaces the daemon under its supervisor, which reads its files again. */
async function reload(daemon: DaemonProcess): Promise<void> {
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
}

test('a region key is changed by SIGHUP on one host after the other, and strangers stay out', async (t) => {
  const directory = temporaryDirectory(t)
  const files = ['a', 'b'].map((name) => join(directory, name)) as [string, string]
  const [oldKey, newKey] = [makeKey(), makeKey()]
  for (const file of files) writeFileSync(file, oldKey, { mode: 0o600 })
  const address = await freeAddress()
  const a = await DaemonProcess.start(t, ['--region-key-file', files[0], '--listen', address])
  const b = await DaemonProcess.start(t, ['--region-key-file', files[1], '--bootstrap', address])
  const stranger = await DaemonProcess.start(t, ['--bootstrap', address])
  const meet = async (): Promise<void> => {
    await eventually('a and b have met', async () => ((await peersOf(b)) === 1 ? true : undefined), patience)
  }
  await meet()
  assert.equal((await b.status()).access, 'region-key')
  for (const keys of [oldKey + newKey, newKey + oldKey, newKey]) {
    for (const [i, daemon] of [a, b].entries()) {
      writeFileSync(files[i]!, keys)
      await reload(daemon)
      await meet()
    }
  }
  const turnedAway = async (): Promise<true | undefined> =>
    (await a.status()).strangers.turnedAway > 0 ? true : undefined
  await eventually('the stranger was turned away', turnedAway, patience)
  assert.match((await a.cli('status')).stdout, /lets in +hosts that have the region key; \d+ connections of strangers/)
  assert.equal(await peersOf(stranger), 0)
  assert.equal((await stranger.status()).access, 'everybody')
})

test('a host that is struck off the list of members is no member after SIGHUP', async (t) => {
  const directory = temporaryDirectory(t)
  const [keyFile, list] = [join(directory, 'key'), join(directory, 'members')]
  writeFileSync(keyFile, makeKey(), { mode: 0o600 })
  const address = await freeAddress()
  const b = await DaemonProcess.start(t, ['--region-key-file', keyFile, '--bootstrap', address])
  writeFileSync(list, `${(await b.status()).peerId} # b\n`)
  const a = await DaemonProcess.start(t, ['--region-key-file', keyFile, '--region-members', list, '--listen', address])
  await eventually('they have met', async () => ((await peersOf(a)) === 1 ? true : undefined), patience)
  writeFileSync(list, `${(await a.status()).peerId} # a\n`)
  await reload(a)
  await eventually('b has lost a', async () => ((await peersOf(b)) === 0 ? true : undefined), patience)
  assert.equal(await peersOf(a), 0)
})

test('a daemon with a region key that cannot be used does not start, and says what to do', async (t) => {
  const directory = temporaryDirectory(t)
  const keyFile = join(directory, 'key')
  const start = (): { status: number; stderr: string } => {
    const options = ['--state-dir', join(directory, 'state'), '--control', join(directory, 'control.sock')]
    try {
      execFileSync(program, ['daemon', ...options, '--region-key-file', keyFile], { encoding: 'utf8', stdio: 'pipe' })
      return { status: 0, stderr: '' }
    } catch (error) {
      return error as { status: number; stderr: string }
    }
  }
  assert.match(start().stderr, /cannot read the region key file/)
  writeFileSync(keyFile, makeKey(), { mode: 0o644 })
  assert.match(start().stderr, /chmod 600/)
  writeFileSync(keyFile, 'secret')
  execFileSync('chmod', ['600', keyFile])
  assert.match(start().stderr, /p2pfs keygen makes one/)
  assert.equal(start().status, 78)
})
