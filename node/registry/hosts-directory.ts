import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { readRegistryHosts, type RegistryHosts } from './hosts-file.ts'

/** A change takes effect within this time, without a restart (ms). */
const keptMs = 60_000
/** Registries whose hosts are remembered. */
const maxRegistries = 256

/** containerd's directory of registries, `/etc/containerd/certs.d`: one directory for each, and `_default`. */
export class HostsDirectory {
  readonly #log: Log
  readonly #directories: readonly string[]
  readonly #fresh: ExpiringMap<string>
  /** The same object as long as nothing changes; undefined where no directory is for the registry. */
  readonly #records = new BoundedMap<string, { source: string; hosts: RegistryHosts | undefined }>({
    maxEntries: maxRegistries,
  })

  constructor({ log, now }: { log: Log; now: () => number }, { directories }: { directories: readonly string[] }) {
    this.#log = log
    this.#directories = directories
    this.#fresh = new ExpiringMap({ maxEntries: maxRegistries, now })
  }

  /** Reads all files, so that a mistake shows at once. @throws invalid naming the file */
  async load(): Promise<void> {
    for (const directory of this.#directories) {
      let names: string[]
      try {
        names = await readdir(directory)
      } catch (cause) {
        throw new P2pfsError(
          'invalid',
          `cannot read ${directory}, which --registry-hosts-dir names: ${(cause as Error).message}`,
          { cause },
        )
      }
      for (const name of names) {
        const path = join(directory, name)
        if (await isDirectory(path)) await readRegistryHosts(path, registryOf(name))
      }
    }
  }

  /** The servers of a registry; undefined where no directory is for it. @throws invalid naming the file */
  async find(registry: string): Promise<RegistryHosts | undefined> {
    if (this.#directories.length === 0) return undefined
    const record = this.#records.get(registry)
    if (record !== undefined && this.#fresh.has(registry)) return record.hosts
    this.#fresh.set(registry, true, keptMs)
    try {
      const directory = await this.#directoryOf(registry)
      const hosts = directory === undefined ? undefined : await readRegistryHosts(directory, registry)
      const source = describe(hosts)
      if (record?.source === source) return record.hosts
      this.#records.set(registry, { source, hosts })
      return hosts
    } catch (error) {
      if (record === undefined) throw error
      this.#log.warn('the hosts of a registry cannot be read; those from before are used', { error, registry })
      return record.hosts
    }
  }

  /** Whether a directory is for this registry by name, and gives servers for it. @throws as {@link find} */
  async names(registry: string): Promise<boolean> {
    if ((await this.#directoryOf(registry, ownNames(registry))) === undefined) return false
    const hosts = await this.find(registry)
    return hosts !== undefined && (hosts.mirrors.length > 0 || hosts.server !== undefined)
  }

  async #directoryOf(
    registry: string,
    names: readonly string[] = [...ownNames(registry), '_default'],
  ): Promise<string | undefined> {
    for (const path of this.#directories.flatMap((directory) => names.map((name) => join(directory, name)))) {
      if (await isDirectory(path)) return path
    }
    return undefined
  }
}

/** containerd writes the port without a colon too. */
const ownNames = (registry: string): string[] => [registry.replace(/:(\d+)$/, '_$1_'), registry]

async function isDirectory(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found?.isDirectory() === true
}

/** The registry of a directory, for mistakes that show at the start. */
const registryOf = (name: string): string =>
  name === '_default' ? 'registry.invalid' : name.replace(/_(\d+)_$/, ':$1')

const describe = (hosts: RegistryHosts | undefined): string =>
  JSON.stringify(hosts, (_key, value: unknown) => (value instanceof Set ? [...value] : value)) ?? ''
