import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { eventually } from '../../test/support/deadline.ts'
import { registryPort, type Registry } from './registry.ts'

const program = fileURLToPath(new URL('./logging-proxy-main.ts', import.meta.url))
const port = registryPort + 1
const startTimeoutMs = 20_000

/** A proxy on the registry's host that logs each request with its times. It ends with the network. */
export interface LoggingProxy {
  /** `HOST:PORT`, for image references. */
  authority: string
  /** File with a `TimedRequest` in each line. */
  logPath: string
}

/** @throws timeout if the proxy does not come up */
export async function startLoggingProxy({ host }: Registry): Promise<LoggingProxy> {
  const logPath = join(host.directory, 'requests.jsonl')
  await writeFile(logPath, '')
  const parameters = [host.address, String(port), String(registryPort), logPath]
  const args = ['--disable-warning=ExperimentalWarning', program, ...parameters]
  const child = await host.start(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let isListening = false
  child.stdout!.once('data', () => (isListening = true))
  await eventually('the proxy listens', async () => await Promise.resolve(isListening || undefined), {
    timeoutMs: startTimeoutMs,
  })
  return { authority: `${host.address}:${port}`, logPath }
}
