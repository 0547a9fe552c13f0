import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listenVariables, receivedDescriptors } from '../../../node/service/descriptors.ts'

test('a process finds the descriptors that it was given, in whatever order, and no child finds them', () => {
  const environment = { ...listenVariables(['lock', 'fuse', 'control'], 7), HOME: '/root' }
  assert.deepEqual(receivedDescriptors(environment, 7), { lock: 3, fuse: 4, control: 5 })
  assert.deepEqual(environment, { HOME: '/root' })
  assert.deepEqual(receivedDescriptors(environment, 7), {})
})

test('descriptors for another process, and those of unknown names, are left alone', () => {
  assert.deepEqual(receivedDescriptors({ ...listenVariables(['fuse'], 8) }, 7), {})
  const mixed = { LISTEN_PID: '7', LISTEN_FDS: '3', LISTEN_FDNAMES: 'stored:lock:lock:fuse' }
  assert.deepEqual(receivedDescriptors(mixed, 7), { lock: 4 })
})
