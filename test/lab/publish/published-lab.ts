import { createHash } from 'node:crypto'
import type { TestContext } from 'node:test'
import { FaultProxy } from '../../../netlab/registry/fault-proxy.ts'
import { FaultRegistry, type FaultRegistryOptions } from '../../support/registry/fault-registry.ts'
import type { LabImage } from '../../../netlab/images/lab-image.ts'
import { run } from '../../../netlab/hosts/process.ts'
import type { LoggedRequest, RegistryFront } from '../../support/registry/front.ts'
import { startDockerRegistry } from '../registry/docker-registry.ts'

export const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** A registry that has an image, and counts what is asked of it. */
export class PublishedLab {
  readonly front: RegistryFront
  readonly image: string
  readonly authority: string
  /** Digests of the image's layers. */
  readonly layers: ReadonlyMap<string, number>
  #from = 0

  private constructor(front: RegistryFront, repository: string, tag: string, manifest: string) {
    this.front = front
    this.authority = front.authority
    this.image = `${this.authority}/${repository}:${tag}`
    this.layers = new Map(
      (JSON.parse(manifest) as { layers: { digest: string; size: number }[] }).layers.map(({ digest, size }) => [
        digest,
        size,
      ]),
    )
  }

  /** Debian's docker-registry, behind a proxy that counts. */
  static async real(t: TestContext, { layoutDirectory, tag }: LabImage): Promise<PublishedLab> {
    const proxy = await FaultProxy.start(await startDockerRegistry(t))
    t.after(async () => await proxy[Symbol.asyncDispose]())
    await run('skopeo', [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--preserve-digests',
      '--dest-tls-verify=false',
      `oci:${layoutDirectory}:${tag}`,
      `docker://${proxy.front.authority}/lab/image:${tag}`,
    ])
    const raw = await run('skopeo', ['--insecure-policy', 'inspect', '--raw', `oci:${layoutDirectory}:${tag}`])
    return new PublishedLab(proxy.front, 'lab/image', tag, raw.stdout.toString())
  }

  /** The lab's own registry, in this process. */
  static async own(
    t: TestContext,
    { layoutDirectory, tag }: LabImage,
    options: FaultRegistryOptions = {},
  ): Promise<PublishedLab & { registry: FaultRegistry }> {
    const registry = await FaultRegistry.start(options)
    t.after(async () => await registry[Symbol.asyncDispose]())
    await registry.addLayout('lab/image', layoutDirectory)
    return Object.assign(new PublishedLab(registry.front, 'lab/image', tag, registry.manifest('lab/image', tag)!), {
      registry,
    })
  }

  /** Options of a daemon that uses this registry. */
  get options(): string[] {
    return ['--insecure-registry', this.authority]
  }

  /** Requests since the last call. */
  requests(): LoggedRequest[] {
    const requests = this.front.log.slice(this.#from)
    this.#from = this.front.log.length
    return requests
  }

  /** Those for layers. */
  ofLayers(requests: readonly LoggedRequest[]): LoggedRequest[] {
    return requests.filter(
      ({ method, path }) => method === 'GET' && this.layers.has(path.slice(path.lastIndexOf('/') + 1)),
    )
  }
}
