import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { silentLog } from '../../../node/base/log.ts'
import { ControlServer } from '../../../node/control/server.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { FakeOperations } from './fake-operations.ts'

const project = fileURLToPath(new URL('../../..', import.meta.url))
const tsc = join(project, 'node_modules/.bin/tsc')
const run = promisify(execFile)

/** A program of others, in TypeScript, that uses the package as it is installed. */
const program = `import { createClient, isP2pfsError, type MountRequest, type MountResult } from 'p2pfs/client'

const client = createClient({ socket: process.argv[2]! })
const request: MountRequest = { image: 'debian', directory: '/mnt' }
const mounted: MountResult = await client.mount(request, { onProgress: ({ doneBytes }) => void doneBytes.toFixed() })
// @ts-expect-error: no such field
await client.inspect({ image: 'debian', colour: 'green' })
// @ts-expect-error: a directory is needed
await client.umount({}).catch((error: unknown) => console.log(isP2pfsError(error, 'invalid')))
console.log(mounted.as, (await client.status()).version)
`

test('a program imports p2pfs/client, with types, and nothing else of p2pfs is loaded', async (t) => {
  const directory = temporaryDirectory(t)
  const installed = join(directory, 'node_modules/p2pfs')
  mkdirSync(installed, { recursive: true })
  await run(tsc, ['-p', 'tsconfig.client.json', '--outDir', join(installed, 'dist')], { cwd: project })
  cpSync(join(project, 'package.json'), join(installed, 'package.json'))
  symlinkSync(join(project, 'node_modules/@types'), join(directory, 'node_modules/@types'))
  writeFileSync(join(directory, 'program.mts'), program)
  const options = ['--module', 'nodenext', '--target', 'es2024', '--strict', '--types', 'node']
  await run(tsc, [...options, 'program.mts'], { cwd: directory }).catch((error: { stdout: string }) =>
    assert.fail(error.stdout),
  )

  const socket = join(directory, 'control.sock')
  const fake = new FakeOperations()
  fake.answer = async ({ operation, request }) => (operation === 'status' ? { version: '7' } : request)
  const server = new ControlServer({ operations: fake.operations, log: silentLog }, { socket })
  await server.start()
  t.after(async () => await server.stop())
  const { stdout } = await run(process.execPath, ['program.mjs', socket], { cwd: directory })
  assert.equal(stdout, 'true\ndrive 7\n')
})
