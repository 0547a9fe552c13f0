import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmodSync, lstatSync, readFileSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { MountList, Problem, Status } from '../../../node/control/api.ts'
import { createClient } from '../../../node/control/client.ts'
import { descriptionFile } from '../../support/openapi.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { copyOddImage } from '../lab-image.ts'

interface Answer {
  status: number
  body: unknown
}

/** As a program does that knows HTTP and not p2pfs: a connection for each request, nothing is tried again. */
async function send(socket: string, method: string, path: string, body?: object): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const sent = httpRequest({ socketPath: socket, method, path, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece))
      response.on('error', reject).on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) as unknown })
      })
    })
    sent.on('error', reject)
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

const mountAt = (directory: string): string => `/v1/mounts?${new URLSearchParams({ directory }).toString()}`

test('no request fails while the daemon or its supervisor is replaced, whatever HTTP client sends it', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const client = createClient({ socket: daemon.control })
  await client.seed({ image })
  let isDone = false
  const rounds = { http: 0, client: 0 }
  const throughHttp = async (directory: string): Promise<void> => {
    for (; !isDone; rounds.http++) {
      const mounted = await send(daemon.control, 'POST', '/v1/mounts', { image, directory })
      assert.equal(mounted.status, 200, JSON.stringify(mounted.body))
      const ended = await send(daemon.control, 'DELETE', mountAt(directory))
      assert.deepEqual(ended, { status: 200, body: {} })
    }
  }
  const throughClient = async (directory: string): Promise<void> => {
    for (; !isDone; rounds.client++) {
      await client.mount({ image, directory })
      await client.umount({ directory })
    }
  }
  const directories = ['a', 'b', 'c', 'd'].map((name) => daemon.target(name))
  const callers = directories.map(async (directory, i) => await [throughHttp, throughClient][i % 2]!(directory))
  const replaced = async (): Promise<void> => {
    for (const by of ['SIGHUP', 'supervisor', 'SIGHUP', 'supervisor']) {
      const { daemonPid } = await daemon.status()
      const before = { ...rounds }
      // Mounts are being made in either way when it happens.
      while (rounds.http < before.http + 4 || rounds.client < before.client + 4) await sleep(5)
      if (by === 'supervisor') await daemon.takeOver('--replace')
      else {
        daemon.signal('SIGHUP')
        await daemon.replaced(daemonPid)
      }
    }
  }
  await Promise.all([replaced().finally(() => (isDone = true)), ...callers])
  assert.deepEqual(await client.listMounts(), { mounts: [] })
})

test('what a daemon answers is what the OpenAPI document says', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const directory = daemon.target('mounted')
  const ajv = new Ajv2020({ strict: false })
  ajv.addSchema(JSON.parse(readFileSync(descriptionFile, 'utf8')) as object, 'api')
  const conforms = (name: string, body: unknown): void =>
    assert.ok(ajv.validate(`api#/components/schemas/${name}`, body), `${name}: ${ajv.errorsText()}`)
  const succeeds = async (name: string, method: string, path: string, body?: object): Promise<unknown> => {
    const answer = await send(daemon.control, method, path, body)
    assert.equal(answer.status, 200, JSON.stringify(answer.body))
    conforms(name, answer.body)
    return answer.body
  }
  const fails = async (status: number, method: string, path: string, body?: object): Promise<void> => {
    const answer = await send(daemon.control, method, path, body)
    assert.equal(answer.status, status, JSON.stringify(answer.body))
    conforms('Problem', answer.body)
    assert.equal((answer.body as Problem).status, status)
  }
  await succeeds('SeedResult', 'POST', '/v1/images/seed', { image })
  await succeeds('InspectResult', 'POST', '/v1/images/inspect', { image })
  await succeeds('VerifyResult', 'POST', '/v1/images/verify', { image })
  await succeeds('ExportResult', 'POST', '/v1/images/export', { image, file: join(daemon.directory, 'file') })
  await succeeds('MountResult', 'POST', '/v1/mounts', { image, directory, scratchBytes: 2 ** 20 })
  await succeeds('Placed', 'POST', '/v1/mounts/reset', { directory })
  const { mounts } = (await succeeds('MountList', 'GET', '/v1/mounts')) as MountList
  const status = (await succeeds('Status', 'GET', '/v1/status')) as Status
  assert.deepEqual(
    [mounts, status.mounts].map((list) => list.map((mount) => mount.directory)),
    [[directory], [directory]],
  )
  await succeeds('Limits', 'POST', '/v1/limits', { set: { upload: '200Mbit' } })
  await succeeds('Limits', 'GET', '/v1/limits')
  await succeeds('SeedJobs', 'GET', '/v1/seeds')
  await fails(409, 'POST', '/v1/mounts', { image, directory })
  await fails(404, 'POST', '/v1/mounts', { image: `${image}x`, directory: daemon.target('other') })
  await fails(404, 'DELETE', `/v1/seeds/${'0'.repeat(32)}`)
  await fails(400, 'POST', '/v1/mounts', { image })
  await succeeds('EmptyResult', 'DELETE', mountAt(directory))
  await fails(404, 'DELETE', mountAt(directory))
})

test('members of --control-group use the daemon, and no other user does', async (t) => {
  const gid = 65_000
  const daemon = await DaemonProcess.start(t, ['--control-group', String(gid)])
  chmodSync(daemon.directory, 0o711)
  const { mode, gid: owner } = lstatSync(daemon.control)
  assert.deepEqual([mode & 0o777, owner], [0o660, gid])
  const script = join(daemon.directory, 'ask.cjs')
  writeFileSync(
    script,
    `require('http').get({ socketPath: ${JSON.stringify(daemon.control)}, path: '/v1/status' }, (r) => console.log(r.statusCode))
      .on('error', (e) => console.log(e.code))`,
  )
  chmodSync(script, 0o644)
  const ask = async (...groups: string[]): Promise<string> =>
    await new Promise((resolve) =>
      execFile('setpriv', ['--reuid=64000', ...groups, process.execPath, script], (_, stdout, stderr) =>
        resolve(stdout.trim() || stderr),
      ),
    )
  assert.equal(await ask('--regid=64001', '--clear-groups'), 'EACCES')
  assert.equal(await ask('--regid=64001', `--groups=${gid}`), '200')
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
  assert.equal(await ask(`--regid=${gid}`, '--clear-groups'), '200', 'after the daemon is replaced')
})
