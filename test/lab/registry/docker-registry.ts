import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { eventually } from '../../support/deadline.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/**
 * Debian's docker-registry on loopback, empty; ended with the test.
 * @param htpasswd who may use it; everybody where not given
 * @returns HOST:PORT
 */
export async function startDockerRegistry(t: TestContext, htpasswd?: string): Promise<string> {
  const directory = temporaryDirectory(t)
  const authority = `127.0.0.1:${20_000 + Math.floor(Math.random() * 30_000)}`
  mkdirSync(join(directory, 'data'))
  if (htpasswd !== undefined) writeFileSync(join(directory, 'htpasswd'), htpasswd)
  const auth = htpasswd === undefined ? '' : `auth: { htpasswd: { realm: test, path: ${directory}/htpasswd } }\n`
  writeFileSync(
    join(directory, 'config.yml'),
    `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${directory}/data } }\nhttp: { addr: "${authority}" }\n${auth}`,
  )
  const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
    stdio: 'ignore',
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  })
  t.after(async () => {
    child.kill()
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  })
  const up = async (): Promise<true | undefined> => {
    if (child.exitCode !== null) throw new Error('docker-registry has ended')
    const { status } = await fetch(`http://${authority}/v2/`)
    return status === 200 || status === 401 ? true : undefined
  }
  await eventually('docker-registry answers', up, { timeoutMs: 20_000 })
  return authority
}
