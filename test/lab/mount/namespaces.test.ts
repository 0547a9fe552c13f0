import assert from 'node:assert/strict'
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { detachForeignMounts } from './foreign-mounts.ts'
import { dropPageCache } from '../lost-chunks.ts'

const content = createRandom(6).bytes(8 * 2 ** 20)
const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

async function start(t: TestContext): Promise<{ daemon: DaemonProcess; rootfs: string }> {
  const daemon = await DaemonProcess.start(t, ['--log-level', 'debug', '--boot-profiles', 'off'])
  const source = daemon.target('source')
  writeFileSync(join(source, 'file'), content)
  const { digest } = await daemon.json<{ digest: string }>('import', source, 'test', '--format', 'erofs')
  return { daemon, rootfs: digest.slice('sha256:'.length) }
}

/** A process in a mount namespace of its own, as a container or a jailed VM has one: a shell that runs commands. */
class Jail {
  readonly #shell: ChildProcessWithoutNullStreams

  constructor(t: TestContext, daemon: DaemonProcess) {
    const script = `${detachForeignMounts(daemon.directory)}; exec sh`
    this.#shell = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script])
    this.#shell.stdout.setEncoding('utf8')
    t.after(() => this.#shell.kill('SIGKILL'))
  }

  /** @returns the first line that the command prints */
  async run(command: string): Promise<string> {
    this.#shell.stdin.write(`${command}\n`)
    const [line] = (await once(this.#shell.stdout, 'data', { signal: AbortSignal.timeout(30_000) })) as [string]
    return line.trim()
  }

  async end(): Promise<void> {
    this.#shell.stdin.end()
    await once(this.#shell, 'exit')
  }
}

async function isSaid(daemon: DaemonProcess, pattern: RegExp): Promise<void> {
  for (const deadline = performance.now() + 20_000; !pattern.test(daemon.log);) {
    assert.ok(performance.now() < deadline, `not said in time: ${pattern.source}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

for (const [kind, options, name] of [
  ['drive', ['--format', 'erofs'], 'rootfs.img'],
  ['tree', ['--as', 'tree'], 'file'],
] as const) {
  test(`a ${kind} that another mount namespace has is served after its umount, by the next daemon too`, async (t) => {
    const { daemon, rootfs } = await start(t)
    const directory = daemon.target('target')
    await daemon.json('mount', 'local:test', directory, ...options)
    const expected = hash(readFileSync(join(directory, name)))
    const jail = new Jail(t, daemon)
    assert.equal(await jail.run('echo ready'), 'ready')
    assert.equal((await daemon.cli('umount', directory)).status, 0)
    const hashInJail = async (): Promise<string> => {
      dropPageCache()
      return await jail.run(`sha256sum < ${join(directory, name)}`)
    }
    assert.equal(await hashInJail(), `${expected}  -`)
    assert.equal(daemon.log.includes('rootfs is served no more'), false)
    const { daemonPid } = await daemon.status()
    daemon.signal('SIGHUP')
    await daemon.replaced(daemonPid)
    assert.equal(await hashInJail(), `${expected}  -`)
    await isSaid(daemon, new RegExp(`image is served again.*${rootfs}`))
    await jail.end()
    dropPageCache()
    // Another umount has the kernel give back what it caches.
    await daemon.json('mount', 'local:test', directory, ...options)
    assert.equal((await daemon.cli('umount', directory)).status, 0)
    await isSaid(daemon, new RegExp(`rootfs is served no more.*${rootfs}`))
  })
}

test('the upper layer of a container in another mount namespace is kept until that ends', async (t) => {
  const { daemon } = await start(t)
  const [first, second] = [daemon.target('first'), daemon.target('second')]
  await daemon.json('mount', 'local:test', first, '--as', 'tree', '--writable')
  await daemon.json('mount', 'local:test', second, '--as', 'tree', '--writable', '--size', '16MiB')
  const jail = new Jail(t, daemon)
  await jail.run(`echo 1 > ${first}/written; echo 1 > ${second}/written; echo ready`)
  assert.equal((await daemon.cli('umount', first)).status, 0)
  assert.equal((await daemon.cli('reset', second)).status, 0)
  assert.deepEqual(readdirSync(second), ['file'])
  await isSaid(daemon, /upper layer of an ended mount is kept/)
  const kept = (): string[] =>
    readdirSync(join(daemon.directory, 'state/writable')).filter((name) => name.includes('.gone-'))
  assert.equal(kept().length, 2)
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
  assert.equal(kept().length, 2)
  const written = `${first}/written ${second}/written`
  assert.equal(await jail.run(`for f in ${written}; do echo 2 >> $f; done; echo $(cat ${written})`), '1 2 1 2')
  await jail.end()
  assert.equal((await daemon.cli('umount', second)).status, 0)
  for (const deadline = performance.now() + 20_000; kept().length > 0;) {
    assert.ok(performance.now() < deadline, `still there: ${kept().join(' ')}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
})
