import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { SharedLayerReads } from '../../../node/layers/shared-layer-reads.ts'

const layer = digestOf(Buffer.from('layer'))
const { signal } = new AbortController()

test('a layer is read once for two that need it, and both see how far it is', async () => {
  const reads = new SharedLayerReads<string>()
  const reading = Promise.withResolvers<string>()
  const seen: string[] = []
  let index: string | undefined
  let tell: (bytes: number) => void = () => undefined
  const first = reads.run(
    layer,
    { signal, onBytes: (bytes) => seen.push(`first ${bytes}`) },
    async () => await Promise.resolve(index),
    async (onBytes) => {
      tell = onBytes
      return await reading.promise
    },
  )
  const never = async (): Promise<never> => await Promise.reject(new Error('read again'))
  const second = reads.run(
    layer,
    { signal, onBytes: (bytes) => seen.push(`second ${bytes}`) },
    async () => await Promise.resolve(index),
    never,
  )
  tell(7)
  index = 'index'
  reading.resolve('index')
  assert.deepEqual(await Promise.all([first, second]), ['index', 'index'])
  assert.deepEqual(seen, ['first 7', 'second 7'])
})

test('where a reading fails the next one reads itself, and one that gives up does not wait', async () => {
  const reads = new SharedLayerReads<string>()
  const reading = Promise.withResolvers<string>()
  const nothing = async (): Promise<undefined> => await Promise.resolve(undefined)
  const onBytes = (): void => undefined
  const failing = assert.rejects(
    reads.run(layer, { signal, onBytes }, nothing, async () => await reading.promise),
    /broken/,
  )
  const gone = new AbortController()
  const givesUp = assert.rejects(
    reads.run(layer, { signal: gone.signal, onBytes }, nothing, async () => await Promise.resolve('never')),
    { name: 'AbortError' },
  )
  const next = reads.run(layer, { signal, onBytes }, nothing, async () => await Promise.resolve('mine'))
  gone.abort()
  await givesUp
  reading.reject(new Error('broken'))
  await failing
  assert.equal(await next, 'mine')
})

test('a reading that nobody waits for is waited for as soon as somebody joins who does', async () => {
  const reads = new SharedLayerReads<string>()
  const reading = Promise.withResolvers<string>()
  const stored = async (): Promise<string> => await Promise.resolve('index')
  const onBytes = (): void => undefined
  let seen: Urgency | undefined
  const first = reads.run(layer, { signal, onBytes, urgency: new Urgency(false) }, stored, async (_, urgency) => {
    seen = urgency
    return await reading.promise
  })
  const never = async (): Promise<never> => await Promise.reject(new Error('read again'))
  const later = new Urgency(false)
  const second = reads.run(layer, { signal, onBytes, urgency: later }, stored, never)
  assert.equal(seen!.isUrgent, false)
  later.raise()
  assert.equal(seen!.isUrgent, true)
  reading.resolve('index')
  await Promise.all([first, second])
})
