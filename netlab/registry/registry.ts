import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { eventually } from '../../test/support/deadline.ts'
import type { LabHost } from '../hosts/lab-host.ts'
import { lastLines } from '../hosts/process.ts'

export const registryPort = 5000
/** One answered request in its log, which mixes lines of Apache's combined format with its own. */
const accessLine = /"(?:GET|HEAD) \/v2\/[^"]*" \d{3} /g
/** A limit for a busy machine; on an idle one it takes a few hundred milliseconds. */
const startTimeoutMs = 20_000

/** Debian's `docker-registry` on a host of its own, whose link can be shaped, cut and counted. */
export class Registry {
  readonly host: LabHost
  /** `HOST:PORT`, for image references; plain HTTP. */
  readonly authority: string
  readonly #process: ChildProcess
  readonly #logPath: string

  private constructor(host: LabHost, process: ChildProcess, logPath: string) {
    this.host = host
    this.#logPath = logPath
    this.authority = `${host.address}:${registryPort}`
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
        `http: { addr: "${host.address}:${registryPort}" }`,
        '',
      ].join('\n'),
    )
    await using log = await open(logPath, 'a')
    const env = { ...process.env, OTEL_TRACES_EXPORTER: 'none' }
    const child = await host.start('docker-registry', ['serve', config], { stdio: ['ignore', log.fd, log.fd], env })
    const registry = new Registry(host, child, logPath)
    await eventually('the registry listens', async () => await registry.#listening(), {
      timeoutMs: startTimeoutMs,
      ...(signal && { signal }),
    })
    return registry
  }

  /**
   * Copies an image of an OCI layout into the registry; its layers stay unchanged.
   *
   * @param repository `lab/debian:1`
   * @returns the reference by which hosts of the network find it
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

  /** The bytes that it has sent over its link so far, as the kernel counts them. */
  get sentBytes(): number {
    // proc(5), net/dev of the process's own network: field 9 of an interface has the transmitted bytes.
    const counters = /^ *eth0: *(.*)$/m
      .exec(readFileSync(`/proc/${this.#process.pid}/net/dev`, 'utf8'))?.[1]
      ?.split(/ +/)
    return Number(counters?.[8] ?? 0)
  }

  /** The number of requests that it has answered so far, without uploads. */
  get answeredRequests(): number {
    return readFileSync(this.#logPath, 'utf8').match(accessLine)?.length ?? 0
  }

  /** Freezes the process: connections are accepted by the kernel, and nobody answers. */
  pause(): void {
    this.#process.kill('SIGSTOP')
  }

  resume(): void {
    this.#process.kill('SIGCONT')
  }

  async #listening(): Promise<true | undefined> {
    const text = await readFile(this.#logPath, 'utf8')
    if (this.#process.exitCode !== null)
      throw new P2pfsError('unavailable', `docker-registry ended: ${lastLines(text, 5)}`)
    return text.includes('listening on') ? true : undefined
  }
}
