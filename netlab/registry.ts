import type { ChildProcess } from 'node:child_process'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../protocol/errors.ts'
import { eventually } from './deadline.ts'
import type { LabHost } from './network.ts'
import { lastLines } from './process.ts'

const port = 5000
/** It is up in a few hundred milliseconds on an idle machine. */
const startTimeoutMs = 20_000

/** Debian's `docker-registry` on a host of its own, so that its link can be shaped, cut and counted. */
export class Registry {
  readonly host: LabHost
  /** `HOST:PORT`, as image references name it; plain HTTP. */
  readonly authority: string
  readonly #process: ChildProcess

  private constructor(host: LabHost, process: ChildProcess) {
    this.host = host
    this.authority = `${host.address}:${port}`
    this.#process = process
  }

  /** @throws unsupported if it is not installed; timeout if it does not come up */
  static async start(host: LabHost, { signal }: { signal?: AbortSignal } = {}): Promise<Registry> {
    const storage = join(host.directory, 'storage')
    const config = join(host.directory, 'registry.yml')
    const logPath = join(host.directory, 'registry.log')
    await mkdir(storage, { recursive: true })
    await writeFile(
      config,
      [
        'version: 0.1',
        'log: { level: info }',
        `storage: { filesystem: { rootdirectory: ${storage} } }`,
        `http: { addr: "${host.address}:${port}" }`,
        '',
      ].join('\n'),
    )
    await using log = await open(logPath, 'a')
    const env = { ...process.env, OTEL_TRACES_EXPORTER: 'none' }
    const child = await host.start('docker-registry', ['serve', config], { stdio: ['ignore', log.fd, log.fd], env })
    const registry = new Registry(host, child)
    await eventually('the registry listens', async () => await registry.#listening(logPath), {
      timeoutMs: startTimeoutMs,
      ...(signal && { signal }),
    })
    return registry
  }

  /**
   * Copies an image of an OCI layout into the registry, layers as they are.
   *
   * @param repository `lab/debian:1`
   * @returns the reference under which hosts of the network find it
   */
  async push(
    image: { layoutDirectory: string; tag: string },
    repository: string,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<string> {
    const reference = `${this.authority}/${repository}`
    const source = `oci:${image.layoutDirectory}:${image.tag}`
    const flags = ['--insecure-policy', 'copy', '--quiet', '--preserve-digests', '--dest-tls-verify=false']
    await this.host.run('skopeo', [...flags, source, `docker://${reference}`], { ...(signal && { signal }) })
    return reference
  }

  async #listening(logPath: string): Promise<true | undefined> {
    const text = await readFile(logPath, 'utf8')
    if (this.#process.exitCode !== null) throw new P2pfsError('unavailable', `docker-registry ended: ${lastLines(text, 5)}`)
    return text.includes('listening on') ? true : undefined
  }
}
