import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Listeners } from '../../../../netlab/simulator/listeners.ts'

test('a listener hears its events, once where it wants that, and not twice where it was added twice', () => {
  const listeners = new Listeners()
  const heard: string[] = []
  const again = ({ type }: Event): void => void heard.push(type)
  listeners.add('message', again)
  listeners.add('message', again)
  listeners.add('close', again)
  listeners.add('message', { handleEvent: () => void heard.push('once') }, { once: true })
  assert.deepEqual([listeners.count('message'), listeners.count('close'), listeners.count('drain')], [2, 1, 0])
  listeners.tell(new Event('message'))
  listeners.tell(new Event('message'))
  listeners.tell(new Event('close'))
  assert.deepEqual(heard, ['message', 'once', 'message', 'close'])
  listeners.remove('message', again)
  listeners.tell(new Event('message'))
  assert.equal(heard.length, 4)
})

test('those that come or go while an event is told change nothing of who hears it', () => {
  const listeners = new Listeners()
  const heard: string[] = []
  const second = (): void => void heard.push('second')
  listeners.add('message', () => {
    listeners.remove('message', second)
    listeners.add('message', () => void heard.push('third'))
  })
  listeners.add('message', second)
  listeners.tell(new Event('message'))
  assert.deepEqual(heard, ['second'])
})
