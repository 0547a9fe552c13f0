import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { P2pfsError } from '../../protocol/errors.ts'
import type { InspectResult } from '../../node/control/api.ts'
import { unpackWithUmoci } from '../images/lab-image.ts'
import { Network } from '../hosts/network.ts'
import { NodeProcess } from '../hosts/node-process.ts'
import { Registry } from '../registry/registry.ts'
import { sharingImages, type SharingImage } from '../images/sharing-images.ts'
import { readTree } from '../images/directory-tree.ts'
import { formatTable } from './table.ts'

/** The needs of a host that has one version of an image and gets the next. */
export interface Sharing {
  image: string
  what: string
  from?: string
  /** The size of the rootfs, with duplicates. */
  sizeBytes: number
  chunks: number
  /** The chunks that the host fetches: those that no segment of the earlier version has. */
  newBytes: number
  newChunks: number
  /** The files whose content is new, each content once. Nobody who cuts at file boundaries fetches less. */
  changedBytes: number
  /** The layers that are new, which a registry transfers: as tars, and compressed. */
  layerBytes: number
  compressedBytes: number
}

/** A limit for a busy machine. */
const meetTimeoutMs = 20_000

/** One host seeds all images from a registry. For each image, a host with the earlier version fetches it from there. */
export async function measureSharing(
  images: readonly SharingImage[],
  { signal }: { signal?: AbortSignal } = {},
): Promise<Sharing[]> {
  const abort = { ...(signal && { signal }) }
  await using network = await Network.create(abort)
  const registry = await Registry.start(await network.addHost('registry'), abort)
  const insecureRegistries = [registry.authority]
  await using a = await NodeProcess.start(await network.addHost('a'), { insecureRegistries, ...abort })
  const references = new Map<string, string>()
  const inspected = new Map<string, InspectResult>()
  const contents = new Map<string, ReadonlyMap<string, number>>()
  for (const image of images) {
    const reference = await registry.push(image, `lab/${image.tag}:1`, abort)
    await a.seed(reference, abort)
    references.set(image.tag, reference)
    inspected.set(image.tag, JSON.parse(await a.cli(['inspect', reference, '--json'], abort)) as InspectResult)
    contents.set(image.tag, await contentsOf(image, network.directory, abort))
  }
  const results: Sharing[] = []
  for (const [i, { tag, what, from }] of images.entries()) {
    await using b = await NodeProcess.start(await network.addHost(`b${i}`), {
      bootstrap: [a],
      insecureRegistries,
      ...abort,
    })
    await b.whenStatus('has met A', ({ peers }) => peers.length > 0, { timeoutMs: meetTimeoutMs, ...abort })
    const fetched = async (reference: string): Promise<{ bytes: number; chunks: number }> => {
      await b.seed(reference, abort)
      const { peer, registry: origin } = (await b.status(abort)).fetched
      if (origin.bytes > 0) throw new P2pfsError('invalid', `${reference} came from the registry, and not from A`)
      return peer
    }
    const before = from === undefined ? { bytes: 0, chunks: 0 } : await fetched(references.get(from)!)
    const after = await fetched(references.get(tag)!)
    const { sizeBytes, chunks, layers } = inspected.get(tag)!
    const oldLayers = new Set(from === undefined ? [] : inspected.get(from)!.layers.map(({ diffId }) => diffId))
    const newLayers = layers.filter(({ diffId }) => !oldLayers.has(diffId))
    const old = from === undefined ? undefined : contents.get(from)!
    results.push({
      image: tag,
      what,
      ...(from !== undefined && { from }),
      sizeBytes,
      chunks,
      newBytes: after.bytes - before.bytes,
      newChunks: after.chunks - before.chunks,
      changedBytes: sum([...contents.get(tag)!].filter(([content]) => !old?.has(content)).map(([, bytes]) => bytes)),
      layerBytes: sum(newLayers.map(({ tarBytes }) => tarBytes)),
      compressedBytes: sum(newLayers.map(({ compressedBytes }) => compressedBytes)),
    })
  }
  return results
}

/** The results as a table for people. */
export function formatSharing(results: readonly Sharing[]): string {
  const rows = results.map((result) => [
    result.image,
    result.from ?? '-',
    megabytes(result.sizeBytes),
    String(result.chunks),
    `${megabytes(result.newBytes)} in ${result.newChunks}`,
    `${((100 * result.newBytes) / result.sizeBytes).toFixed(1)} %`,
    megabytes(result.changedBytes),
    megabytes(result.layerBytes),
    megabytes(result.compressedBytes),
    result.what,
  ])
  const heading = ['image', 'on', 'size', 'chunks', 'new', 'new', 'changed files', 'new layers', 'compressed', 'what']
  return formatTable([heading, ...rows])
}

/** The sizes of an image's files, by their content. */
async function contentsOf(
  image: SharingImage,
  directory: string,
  abort: { signal?: AbortSignal },
): Promise<ReadonlyMap<string, number>> {
  const bundle = join(directory, `unpacked-${image.tag}`)
  const tree = await readTree(await unpackWithUmoci(image, bundle, abort), abort)
  await rm(bundle, { recursive: true })
  return new Map(
    [...tree.values()]
      .filter(({ content }) => content !== '')
      .map(({ content, sizeBytes }) => [content, Number(sizeBytes)]),
  )
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`

if (import.meta.main) {
  const { values: args } = parseArgs({ options: { json: { type: 'boolean', default: false } } })
  process.stderr.write('sharing: preparing the images\n')
  const images = await sharingImages()
  process.stderr.write('sharing: measuring\n')
  const results = await measureSharing(images)
  process.stdout.write(`${args.json ? JSON.stringify(results, undefined, 2) : formatSharing(results)}\n`)
}
