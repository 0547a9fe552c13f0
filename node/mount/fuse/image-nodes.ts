import { directoryNodeId, type BlockImage } from './block-image.ts'
import { rootNodeId, type Attributes } from './protocol.ts'

/** The only entry in the directory of an image. */
export const imageFile = 'rootfs.img'

/** An image as one thread serves it: views of the arrays that all threads share. */
export class ServedImage {
  readonly image: BlockImage
  /** Different for all images that the thread has ever served. */
  readonly number: number
  readonly offsets: Float64Array
  readonly digests: Buffer
  readonly checkedAtMs: Float64Array
  readonly state: Uint8Array
  readonly readOrder: Int32Array
  /** Whether its directory cannot be looked up or listed: only who has it already is served. */
  isHidden = false
  /** Users who may open the file, besides root: the owners of its mounts. */
  owners: ReadonlySet<number> = new Set()
  readonly #references: Int32Array

  constructor(image: BlockImage, number: number) {
    this.image = image
    this.number = number
    this.offsets = new Float64Array(image.offsets)
    this.digests = Buffer.from(image.digests)
    this.checkedAtMs = new Float64Array(image.checkedAtMs)
    this.state = new Uint8Array(image.state)
    this.readOrder = new Int32Array(image.readOrder)
    this.#references = new Int32Array(image.references)
  }

  /** Whether a user may open the file. A user who has it open may read it: the kernel asks no more then. */
  mayOpen(uid: number): boolean {
    return uid === 0 || this.owners.has(uid)
  }

  /** How many lookups of its directory and file the kernel has had from this process, and not taken back. */
  get references(): number {
    return Atomics.load(this.#references, 0)
  }

  /** The kernel gets to know the directory or the file; called before it is told. */
  reference(): void {
    Atomics.add(this.#references, 0, 1)
  }

  /** The kernel drops lookups, also those that an earlier process has answered. @returns how many are left */
  dereference(lookups: number): number {
    for (;;) {
      const references = this.references
      const left = Math.max(0, references - lookups)
      if (Atomics.compareExchange(this.#references, 0, references, left) === references) return left
    }
  }
}

/** The files and directories of the FUSE filesystem, as one thread serves them: `NAME/rootfs.img` for each image. */
export class ImageNodes {
  readonly #byName = new Map<string, ServedImage>()
  /** By the node id of the directory. */
  readonly #byNodeId = new Map<number, ServedImage>()
  #count = 0

  /**
   * Serves an image; one that is served already is no longer hidden.
   * @throws TypeError if its node id is that of another image
   */
  add(image: BlockImage): ServedImage {
    const known = this.#byNodeId.get(image.nodeId)
    if (known !== undefined) {
      if (known.image.name !== image.name) throw new TypeError(`two images with node id ${image.nodeId}`)
      known.isHidden = false
      return known
    }
    const served = new ServedImage(image, this.#count++)
    this.#byName.set(image.name, served)
    this.#byNodeId.set(image.nodeId, served)
    return served
  }

  delete(name: string): void {
    const served = this.#byName.get(name)
    if (served !== undefined) this.#byNodeId.delete(served.image.nodeId)
    this.#byName.delete(name)
  }

  named(name: string): ServedImage | undefined {
    return this.#byName.get(name)
  }

  /** Says which users may open the file of an image, besides root. */
  setOwners(name: string, uids: readonly number[]): void {
    const served = this.#byName.get(name)
    if (served !== undefined) served.owners = new Set(uids)
  }

  /** Users who may open the file of each image. */
  owners(): { name: string; uids: number[] }[] {
    return [...this.#byName.values()].map(({ image, owners }) => ({ name: image.name, uids: [...owners] }))
  }

  /** The image whose directory or file has this node id. */
  at(nodeId: number): ServedImage | undefined {
    return this.#byNodeId.get(directoryNodeId(nodeId))
  }

  hidden(): ServedImage[] {
    return [...this.#byName.values()].filter(({ isHidden }) => isHidden)
  }

  /** Names of the images that can be looked up. */
  shown(): string[] {
    return [...this.#byName.values()].filter(({ isHidden }) => !isHidden).map(({ image }) => image.name)
  }

  images(): BlockImage[] {
    return [...this.#byName.values()].map(({ image }) => image)
  }

  attributes(nodeId: number): Attributes | undefined {
    if (nodeId === rootNodeId) return { nodeId, directory: true, sizeBytes: 0 }
    const image = this.at(nodeId)?.image
    if (image === undefined) return undefined
    const directory = nodeId === image.nodeId
    return { nodeId, directory, sizeBytes: directory ? 0 : image.sizeBytes }
  }

  lookup(parent: number, name: string): Attributes | undefined {
    if (parent !== rootNodeId)
      return name === imageFile && this.at(parent)?.image.nodeId === parent ? this.attributes(parent + 1) : undefined
    const found = this.#byName.get(name)
    return found === undefined || found.isHidden ? undefined : this.attributes(found.image.nodeId)
  }

  entries(nodeId: number): { nodeId: number; directory: boolean; name: string }[] {
    const entries = [
      { nodeId, directory: true, name: '.' },
      { nodeId: rootNodeId, directory: true, name: '..' },
    ]
    if (nodeId !== rootNodeId) return [...entries, { nodeId: nodeId + 1, directory: false, name: imageFile }]
    for (const { image, isHidden } of this.#byName.values())
      if (!isHidden) entries.push({ nodeId: image.nodeId, directory: true, name: image.name })
    return entries
  }
}
