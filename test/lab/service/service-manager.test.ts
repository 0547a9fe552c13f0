import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { MountResult, Status } from '../../../node/control/api.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { runCli } from '../daemon-process.ts'
import { copyOddImage } from '../lab-image.ts'
import { Readers } from './readers.ts'

const manager = fileURLToPath(new URL('../../support/fake-service-manager.pl', import.meta.url))
const program = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))
const waitMs = 90_000

test('a service manager keeps the descriptors: all of the service is killed at once, again and again, and readers wait', async (t) => {
  const directory = temporaryDirectory(t)
  const control = join(directory, 'control.sock')
  const options = ['--state-dir', join(directory, 'state'), '--control', control]
  const daemon = ['daemon', ...options, '--listen', '/ip4/127.0.0.1/tcp/0', '--native-reads', 'off']
  const service = spawn('perl', [manager, join(directory, 'notify'), program, ...daemon], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  let log = ''
  service.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
  service.stderr.setEncoding('utf8').on('data', (text: string) => (log += text))
  t.after(() => {
    if (service.exitCode === null) service.kill('SIGKILL')
    execFileSync(program, ['daemon', '--stop-mounts', ...options])
  })
  const ready = async (times: number): Promise<void> => {
    for (const deadline = performance.now() + waitMs; said.split('READY=1').length <= times;) {
      if (service.exitCode !== null || performance.now() > deadline) throw new Error(`not ready: ${said}${log}`)
      await new Promise((over) => setTimeout(over, 50))
    }
  }
  await ready(1)
  assert.match(said, /FDSTORE=1 FDNAME=fuse[^]*FDSTORE=1 FDNAME=lock[^]*FDSTORE=1 FDNAME=control[^]*READY=1/)
  const image = await copyOddImage(directory)
  const mounts: string[] = []
  for (const as of ['drive', 'tree']) {
    const target = join(directory, as)
    execFileSync('mkdir', [target])
    const { stdout } = await runCli(['mount', image, target, '--as', as, '--json', '--control', control])
    mounts.push((JSON.parse(stdout) as MountResult).rootfs)
  }
  const readers = new Readers(t, directory, mounts)
  await readers.readAll()
  for (let round = 0; round < 3; round++) {
    const { stdout } = await runCli(['status', '--json', '--control', control])
    const { daemonPid } = JSON.parse(stdout) as Status
    const [, supervisor = ''] = said
      .match(/started (\d+)/g)!
      .at(-1)!
      .split(' ')
    process.kill(Number(supervisor), 'SIGSTOP')
    process.kill(daemonPid, 'SIGKILL')
    process.kill(Number(supervisor), 'SIGKILL')
    await ready(round + 2)
    await readers.readAll()
  }
  assert.deepEqual(await readers.stop(), [])
  // The descriptors that it keeps would let readers wait for ever.
  service.kill('SIGTERM')
  await once(service, 'exit')
  assert.match(said, /ended 0 stored \n$/)
  assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(directory) && !existsSync(control))
})
