import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import type { MountRequest } from '../../../node/control/api.ts'
import { isUsage } from '../../../node/control/usage.ts'
import type { MountPolicy } from '../../../node/images/resolver.ts'
import type { ResolvedRootfs } from '../../../node/model/image.ts'
import { ImageRequests } from '../../../node/operations/image-request.ts'
import { MountOperation, UmountOperation, type MountParts } from '../../../node/operations/mount.ts'
import { HeldCallers } from '../../../node/registry/held-callers.ts'
import { callerOf, parseReference, type Reference } from '../../../node/registry/reference.ts'
import type { MountRecord } from '../../../node/store/mount-record.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()
const options = { signal, onProgress: () => undefined }
const image = 'host.test/app:1'
const auth = { username: 'user', password: 'hunter2' }

/** The operations on a host whose resolver answers as the test says. */
function host(
  t: TestContext,
  {
    pull = 'newer',
    resolve = async () => await Promise.resolve(),
  }: { pull?: MountPolicy; resolve?: () => Promise<void> } = {},
) {
  const callers = new HeldCallers()
  const directory = temporaryDirectory(t)
  const asked: { reference: Reference; pull: MountPolicy; requireAccess?: boolean }[] = []
  const records: MountRecord[] = []
  const resolveForMount: MountParts['resolver']['resolveForMount'] = async (
    reference,
    _variant,
    { signal, pull, requireAccess },
  ) => {
    asked.push({ reference, pull, ...(requireAccess !== undefined && { requireAccess }) })
    await Promise.race([
      resolve(),
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
    ])
    const record = {
      reference: image,
      platform: 'linux/amd64',
      format: 'ext4',
      rootfsDigest: 'r',
      manifestDigest: 'm',
    }
    const manifest = { format: 'ext4', config: '{}' }
    return { record, manifest, origin: 'peer', resolution: 'last-known', belief: {} } as unknown as ResolvedRootfs
  }
  const parts = {
    stateDir: '/nonexistent',
    requests: new ImageRequests({ platform: 'linux/amd64' }),
    resolver: { resolveForMount },
    callers,
    mounts: {
      mount: async (_manifest: unknown, record: MountRecord) => {
        records.push(record)
        return await Promise.resolve({ rootfs: directory })
      },
    },
    reserve: { release: async () => undefined },
    reports: { of: () => ({}) },
    hot: { mounted: () => undefined },
    log: silentLog,
  } as unknown as MountParts
  const isHeld = (): boolean => callers.readersOf(parseReference(image)).length > 1
  const operation = new MountOperation(parts, { pull })
  const run = async (request: Partial<MountRequest>) => await operation.run({ image, directory, ...request }, options)
  const umount = new UmountOperation({
    mounts: { umount: async () => await Promise.resolve(records.at(-1)!) },
    callers,
    log: silentLog,
  })
  return { run, umount: async () => await umount.run({ directory }), asked, isHeld, records }
}

test('credentials are kept while what they were given for stands: the mount, or the request if it fails', async (t) => {
  const { run, umount, isHeld, records } = host(t)
  await run({ auth })
  assert.ok(isHeld())
  assert.doesNotMatch(JSON.stringify(records), /user|hunter2/, 'no record of a mount has them')
  assert.equal(records[0]?.hadCredentials, true)
  await umount()
  assert.ok(!isHeld())
  let wasHeld = false
  const failing = host(t, {
    resolve: async () => {
      wasHeld = failing.isHeld()
      return await Promise.reject(new Error('no'))
    },
  })
  await assert.rejects(failing.run({ auth }))
  assert.ok(wasHeld && !failing.isHeld())
})

test('a mount that must have access, without credentials, asks as somebody who has none', async (t) => {
  const { run, asked } = host(t)
  await run({})
  await run({ requireAccess: true })
  await run({ requireAccess: true, auth: {} })
  await run({ requireAccess: true, auth })
  const keys = asked.map(({ reference }) => callerOf(reference)?.key)
  assert.equal(keys[0], undefined)
  assert.ok(keys[1] !== undefined && keys[1] === keys[2] && keys[3] !== undefined && keys[3] !== keys[1])
  assert.deepEqual(await callerOf(asked[1]!.reference)!.find('host.test'), undefined)
})

test('a mount that names no policy, or auto, has that of the daemon', async (t) => {
  for (const pull of ['missing', 'always', 'newer'] as const) {
    const { run, asked } = host(t, { pull })
    await run({})
    await run({ pull: 'auto' })
    await run({ pull: 'never' })
    assert.deepEqual(
      asked.map((one) => one.pull),
      [pull, pull, 'never'],
    )
  }
})

test('a disk that cannot be made is wrong usage, and no image is looked for', async (t) => {
  const { run, asked } = host(t)
  for (const request of [{ scratchBytes: 2 ** 47 }, { as: 'tree', writable: true, limitBytes: 1024 }] as const)
    await assert.rejects(run(request), (error) => isUsage(error))
  assert.deepEqual(asked, [])
})

test('a mount is given up after its time, and says so', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { promise: asked, resolve: isAsked } = Promise.withResolvers<void>()
  const { run } = host(t, {
    resolve: async () => {
      isAsked()
      return await new Promise<void>(() => undefined)
    },
  })
  const mounting = assert.rejects(run({ timeoutMs: 1500 }), {
    code: 'timeout',
    message: `${image} is not mounted within 1.5 s; what has come is kept`,
  })
  await asked
  t.mock.timers.tick(1500)
  await mounting
})

test('credentials for an image that is in no registry are refused', async (t) => {
  const { run } = host(t)
  for (const image of ['local:app', 'oci:/images:1']) await assert.rejects(run({ image, auth }), { code: 'invalid' })
})
