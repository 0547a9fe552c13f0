import assert from 'node:assert/strict'
import { test } from 'node:test'
import { OutageWatch, type Listening } from '../../../node/registry/outage-watch.ts'
import type { P2pfsError } from '../../../protocol/errors.ts'

/** A fast watch whose probes are answered as `answers` says, in turn, and after that like the last one. */
function lab(
  answers: readonly boolean[],
  { unreachableMs = 60_000 } = {},
): {
  listen: () => Listening & { cut: Promise<P2pfsError> }
  probed: () => number
  until: (count: number) => Promise<void>
  idle: () => boolean
} {
  let probes = 0
  let isIdle = false
  const probe = async (): Promise<boolean> => answers[Math.min(probes++, answers.length - 1)]!
  const watch = new OutageWatch(
    { probe, onIdle: () => (isIdle = true) },
    { host: 'registry.test', port: 1, unreachableMs, pace: { silenceMs: 30, probeMs: 30 } },
  )
  return {
    listen: () => {
      const { promise: cut, resolve } = Promise.withResolvers<P2pfsError>()
      return { ...watch.listen(resolve), cut }
    },
    probed: () => probes,
    // The watch's own timers keep no process alive.
    until: async (count) => {
      while (probes < count) await new Promise((resolve) => setTimeout(resolve, 2))
    },
    idle: () => isIdle,
  }
}

const isCut = async (cut: Promise<P2pfsError>): Promise<boolean> =>
  await Promise.race([cut.then(() => true), new Promise<boolean>((resolve) => setTimeout(resolve, 50, false))])

test('a host that takes connections and says nothing is left to itself', async () => {
  const { listen, until, idle } = lab([true])
  const { wait, cut, close } = listen()
  wait()
  await until(2)
  assert.equal(await isCut(cut), false)
  close()
  assert.ok(idle())
})

test('when a host is there again, those who have waited meanwhile are cut off, and no others', async () => {
  const { listen, until } = lab([false, true])
  const [silent, later, idle] = [listen(), listen(), listen()]
  silent.wait()
  await until(2)
  later.wait()
  assert.equal((await silent.cut).code, 'unavailable')
  assert.deepEqual([await isCut(later.cut), await isCut(idle.cut)], [false, false])
  for (const { close } of [silent, later, idle]) close()
})

test('a host that speaks to somebody is not away, even if it takes no more connections', async () => {
  const { listen, until } = lab([false, false, true])
  const [silent, hearing] = [listen(), listen()]
  silent.wait()
  hearing.wait()
  for (let probes = 1; probes <= 4; probes++) {
    await until(probes)
    hearing.heard()
    hearing.wait()
  }
  assert.equal(await isCut(silent.cut), false)
  for (const { close } of [silent, hearing]) close()
})

test('a host that does not come back is given up', async () => {
  const { listen, until } = lab([false], { unreachableMs: 1 })
  const { wait, cut, close } = listen()
  wait()
  await until(2)
  assert.equal((await cut).code, 'timeout')
  close()
})
