import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { FaultRegistry, type FaultRegistryOptions } from '../../support/registry/fault-registry.ts'
import { debianImages, oddImage } from '../../../netlab/images/images.ts'
import type { MountResult } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { loseChunks } from '../lost-chunks.ts'

export const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** The offset of the last block of noise: its bytes do not come from the layer's index. */
export function lastNoise(whole: Buffer): number {
  for (let at = whole.length - 4096; at > 0; at -= 4096)
    if (new Set(whole.subarray(at, at + 4096)).size > 200) return at
  throw new Error('no such block')
}

export interface FaultyLab {
  registry: FaultRegistry
  daemon: DaemonProcess
  image: string
  rootfs: string
  /** Its manifest, as stored. */
  manifest: string
  /** The bytes of the rootfs. */
  whole: Buffer
  /** Takes away a share of its chunks. @returns how many */
  lose: (share: number) => number
}

/** The fault registry with one of the lab's images: as `lab/image:1`. Ends with the test. */
export async function startFaultRegistry(
  t: TestContext,
  which: 'odd' | 'debian',
  options: FaultRegistryOptions = {},
): Promise<{ registry: FaultRegistry; image: string }> {
  const registry = await FaultRegistry.start(options)
  t.after(async () => await registry[Symbol.asyncDispose]())
  const { layoutDirectory, tag } = which === 'odd' ? await oddImage() : (await debianImages()).gzip
  await registry.addLayout('lab/image', layoutDirectory)
  return { registry, image: `${registry.authority}/lab/image:${tag}` }
}

/** A daemon that has an image of a fault registry mounted, all of it local. */
export async function startFaultyLab(
  t: TestContext,
  which: 'odd' | 'debian',
  { daemonOptions = [], ...options }: FaultRegistryOptions & { daemonOptions?: string[] } = {},
): Promise<FaultyLab> {
  const { registry, image } = await startFaultRegistry(t, which, options)
  const daemon = await DaemonProcess.start(t, ['--insecure-registry', registry.authority, ...daemonOptions])
  const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target('mnt'))
  const whole = await readFile(rootfs)
  const manifest = registry.manifest('lab/image', image.slice(image.lastIndexOf(':') + 1))!
  return {
    registry,
    daemon,
    image,
    rootfs,
    manifest,
    whole,
    lose: (share) => loseChunks(join(daemon.directory, 'state'), whole, share),
  }
}
