import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Network } from '../../../netlab/hosts/network.ts'
import { measureTcp } from '../../../netlab/bench/tcp-stream.ts'
import { run } from '../../../netlab/hosts/process.ts'

const labProgram = fileURLToPath(new URL('./lab-program.ts', import.meta.url))

/** The namespaces, mounts and files of the lab `name` that the machine still has. */
async function remains(name: string): Promise<string[]> {
  const { stdout } = await run('ip', ['netns', 'list'])
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  return [...stdout.toString().split('\n'), ...mounts, ...(existsSync(`/tmp/${name}`) ? [`/tmp/${name}`] : [])].filter(
    (line) => line.includes(name),
  )
}

test('connects its hosts with each other', async () => {
  await using network = await Network.create()
  const [a, b] = [await network.addHost('a'), await network.addHost('b')]
  const rate = await measureTcp(a, b, 10e6)
  assert.ok(rate > 10e6, `${rate} bytes per second`)
  const traffic = await a.traffic()
  assert.ok(traffic.sentBytes > 10e6, `A sent ${traffic.sentBytes} bytes`)
})

test('keeps the machine itself out of the network', async () => {
  await using network = await Network.create()
  const host = await network.addHost('a')
  const { stdout } = await run('ip', ['-json', 'address'])
  assert.ok(!stdout.toString().includes(host.address.split('.').slice(0, 2).join('.')))
})

test('holds a shaped link to its rate', async () => {
  await using network = await Network.create()
  const [a, b] = [await network.addHost('a', { rateBitsPerSecond: 100e6 }), await network.addHost('b')]
  const rate = (await measureTcp(a, b, 6e6)) * 8
  assert.ok(rate > 60e6 && rate < 115e6, `${(rate / 1e6).toFixed(0)} Mbit/s over a link of 100`)
})

test('cuts a link, and restores it', async () => {
  await using network = await Network.create()
  const [a, b] = [await network.addHost('a'), await network.addHost('b')]
  await a.cut()
  await assert.rejects(measureTcp(a, b, 1000, { signal: AbortSignal.timeout(1500) }))
  await a.restore()
  assert.ok((await measureTcp(a, b, 1000)) > 0)
})

test('refuses a second host of the same name', async () => {
  await using network = await Network.create()
  await network.addHost('a')
  await assert.rejects(network.addHost('a'), { code: 'conflict' })
})

test('leaves nothing behind: processes, mounts, loop devices, namespaces, files', async () => {
  const network = await Network.create()
  const host = await network.addHost('a')
  const sleeper = await host.start('sleep', ['1000'])
  await run('mount', ['-t', 'tmpfs', 'lab', host.directory])
  const image = join(host.directory, 'image')
  await run('truncate', ['--size=1M', image])
  const { stdout } = await run('losetup', ['--find', '--show', image])
  const ended = once(sleeper, 'exit')
  await network[Symbol.asyncDispose]()
  await ended
  assert.deepEqual(await remains(network.name), [])
  assert.equal(existsSync(`/sys/block/${stdout.toString().trim().slice('/dev/'.length)}/loop`), false)
  await assert.rejects(network.addHost('b'), { code: 'closed' })
})

/** Starts a program with a lab and has it end in the given way. @returns the lab's name */
async function endProgram(ending: string): Promise<string> {
  const child = spawn(process.execPath, [labProgram, ending], { stdio: ['ignore', 'pipe', 'ignore'] })
  const exit = once(child, 'exit')
  const [name] = (await once(child.stdout, 'data')) as [Buffer]
  if (ending.startsWith('SIG')) child.kill(ending as NodeJS.Signals)
  await exit
  return name.toString().trim()
}

for (const ending of ['SIGINT', 'SIGTERM', 'exception', 'rejection', 'exit']) {
  test(`leaves nothing behind when the program ends by ${ending}`, async () => {
    assert.deepEqual(await remains(await endProgram(ending)), [])
  })
}

test('removes what a killed program has left', async () => {
  const name = await endProgram('SIGKILL')
  assert.notDeepEqual(await remains(name), [])
  await using network = await Network.create()
  assert.deepEqual(await remains(name), [])
  void network
})
