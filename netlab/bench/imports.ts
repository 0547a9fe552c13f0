import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Containerd } from '../hosts/containerd.ts'
import type { LabImage } from '../images/lab-image.ts'
import { measurement, type Measurement } from './measurement.ts'
import type { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { run } from '../hosts/process.ts'
import type { Registry } from '../registry/registry.ts'
import { alternate, seconds } from './timing.ts'

const bytesPerMegabyte = 1e6

/**
 * Measures `p2pfs seed` into an empty state directory, against a pull by an empty containerd.
 *
 * @param image must have no hard links from layer to layer: containerd 1.6 cannot unpack these with overlayfs
 */
export async function measureImports(
  network: Network,
  registry: Registry,
  image: LabImage,
  runs: number,
): Promise<Measurement[]> {
  const reference = await registry.push(image, 'lab/imported:1')
  const host = await network.addHost('import')
  const [seeds, peaks, pulls, unpacks]: [number[], number[], number[], number[]] = [[], [], [], []]
  const seed = async (): Promise<void> => {
    const node = await NodeProcess.startEmpty(host, { insecureRegistries: [registry.authority] })
    seeds.push(await seconds(async () => await node.seed(reference)))
    peaks.push((await node.peakMemoryBytes()) / bytesPerMegabyte)
    await node.stop()
  }
  const pull = async (): Promise<void> => {
    const directory = join(host.directory, 'containerd')
    await run('sync', [])
    const containerd = await Containerd.start(host, directory)
    pulls.push(await seconds(async () => await containerd.pull(reference)))
    await containerd.stop()
    await rm(directory, { recursive: true })
  }
  const unpack = async (): Promise<void> => {
    const directory = join(host.directory, 'pull')
    await mkdir(directory)
    const layout = join(directory, 'layout')
    const copy = [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--src-tls-verify=false',
      `docker://${reference}`,
      `oci:${layout}:image`,
    ]
    await run('sync', [])
    unpacks.push(
      await seconds(async () => {
        await host.run('skopeo', copy)
        await host.run('umoci', ['unpack', '--image', `${layout}:image`, join(directory, 'bundle')])
      }),
    )
    await rm(directory, { recursive: true })
  }
  await alternate(runs, seed, pull, unpack)
  return [
    measurement('import of an image from the registry', 's', seeds, {
      name: 'ctr image pull, overlayfs',
      values: pulls,
    }),
    measurement('the same', 's', seeds, { name: 'skopeo copy + umoci unpack', values: unpacks }),
    measurement('peak memory of the daemon in an import', 'MB', peaks),
  ]
}
