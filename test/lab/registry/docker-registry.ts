import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { eventually } from '../../support/deadline.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** Ports below those that Linux gives to outgoing connections, which other tests take at any time. */
const ports = { first: 10_000, count: 20_000 }
/** How often another port is tried when somebody takes one between the look and the start. */
const maxStarts = 5

/**
 * Debian's docker-registry on loopback, empty; ended with the test.
 * @param htpasswd who may use it; everybody where not given
 * @returns HOST:PORT
 */
export async function startDockerRegistry(t: TestContext, htpasswd?: string): Promise<string> {
  for (let starts = 1; ; starts++) {
    const authority = `127.0.0.1:${await freePort()}`
    const child = serve(authority, temporaryDirectory(t), htpasswd)
    const up = async (): Promise<boolean | undefined> => {
      if (child.exitCode !== null) return false
      const { status } = await fetch(`http://${authority}/v2/`)
      return status === 200 || status === 401 ? true : undefined
    }
    if (await eventually('docker-registry answers', up, { timeoutMs: 20_000 })) {
      t.after(async () => {
        child.kill()
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      })
      return authority
    }
    if (starts === maxStarts) throw new Error(`docker-registry has ended with ${child.exitCode}, ${starts} times`)
  }
}

function serve(authority: string, directory: string, htpasswd: string | undefined): ChildProcess {
  mkdirSync(join(directory, 'data'))
  if (htpasswd !== undefined) writeFileSync(join(directory, 'htpasswd'), htpasswd)
  const auth = htpasswd === undefined ? '' : `auth: { htpasswd: { realm: test, path: ${directory}/htpasswd } }\n`
  writeFileSync(
    join(directory, 'config.yml'),
    `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${directory}/data } }\nhttp: { addr: "${authority}" }\n${auth}`,
  )
  return spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
    stdio: 'ignore',
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  })
}

async function freePort(): Promise<number> {
  for (;;) {
    const port = ports.first + Math.floor(Math.random() * ports.count)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}
