import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseArgs } from 'node:util'
import { chunkProtocol } from '../../../../protocol/messages/chunk.ts'
import { spanProtocol } from '../../../../protocol/messages/span.ts'
import { simulationOptions, type SimulationArguments } from '../../../../netlab/simulator/command-line.ts'
import { startSimulation } from '../../../../netlab/simulator/start-simulation.ts'

const { values } = parseArgs({ args: [], options: simulationOptions })

function args(given: Partial<SimulationArguments>): SimulationArguments {
  return { ...values, containers: '1', settle: '3', ...given }
}

test('twelve hosts that start at once read one copy from the registry, and nothing is broken', async () => {
  const result = await startSimulation(args({ hosts: '12' }))
  assert.deepEqual(result.told, [])
  assert.equal(result.containers, 12)
  assert.ok(result.copies < 1.05, String(result.copies))
})

test('the same seed makes the same events in another process, and another seed others', async () => {
  const run = async (seed: string): Promise<unknown> => {
    const { hash, events, readyMs, registryBytes } = await startSimulation(args({ hosts: '4', seed }))
    return { hash, events, readyMs, registryBytes }
  }
  const first = await run('5')
  assert.deepEqual(await run('5'), first)
  assert.notDeepEqual(await run('6'), first)
})

test('a registry that is too slow for its readers is found: what, when, and on which host', async () => {
  const result = await startSimulation(args({ hosts: '3', rate: '20', 'max-read': '0.5' }))
  assert.ok(result.violations > 0)
  const [{ what, atMs, host } = assert.fail()] = result.told
  assert.match(what, /a read waited for \d+ ms, more than 500/)
  assert.ok(atMs > 3000 && host !== undefined)
})

test('hosts that send wrong bytes keep nobody from getting right ones', async () => {
  const result = await startSimulation(args({ hosts: '21', scenario: 'liars' }))
  assert.deepEqual(result.told, [])
  assert.equal(result.containers, 21)
})

test('a network that is divided and healed lets all containers start', async () => {
  const result = await startSimulation(args({ hosts: '8', scenario: 'partition' }))
  assert.deepEqual(result.told, [])
  assert.equal(result.containers, 8)
})

test('containers read on while hosts come and go, and no read fails or waits for long', async () => {
  const run = { hosts: '12', seed: '2', scenario: 'churn', 'image-scale': '0.1' }
  const burst = await startSimulation(args(run))
  const result = await startSimulation(args({ ...run, last: '60' }))
  assert.deepEqual(result.told, [])
  assert.ok(result.containers > 12, 'no host was replaced')
  assert.ok(result.registryBytes > burst.registryBytes * 1.5, 'nothing was read after the boot')
})

test('messages of streams are counted by protocol', async () => {
  const { byProtocol, messagesPerHostSecond } = await startSimulation(args({ hosts: '4', 'image-scale': '0.1' }))
  assert.ok(byProtocol[chunkProtocol]! > 0 && byProtocol[spanProtocol]! > 0)
  const sum = Object.values(byProtocol).reduce((all, one) => all + one, 0)
  assert.ok(sum <= messagesPerHostSecond.burst, `${sum}, more than ${messagesPerHostSecond.burst}`)
})

test('a region that begins settled has the connections and the ready times of one that has found itself', async () => {
  const run = { hosts: '70', settle: '4', rest: '0.5', 'image-scale': '0.01' }
  const [found, settled] = [await startSimulation(args(run)), await startSimulation(args({ ...run, settled: true }))]
  assert.deepEqual([settled.told, settled.containers], [[], 70])
  assert.equal(settled.registryBytes, found.registryBytes)
  const { first, last } = settled.readyMs
  assert.ok(Math.abs(first - found.readyMs.first) < 50 && Math.abs(last - found.readyMs.last) < 50)
  assert.ok(settled.connected.max < 64 && settled.messagesPerHostSecond.idle < 1)
})
