import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageStorage } from './image-storage.ts'
import { formatReference, type Reference } from './reference.ts'

/** Images that were imported on a host: nothing stores them but the chunks of the hosts that have them. */
export const localImages: ImageStorage = {
  manifest: async (reference) => gone(reference),
  manifestByDigest: async (reference) => gone(reference),
  // oxlint-disable-next-line require-yield
  blob: async function* (reference) {
    gone(reference)
  },
  range: async (reference) => gone(reference),
  pushBlob: async (reference) => gone(reference),
  pushManifest: async (reference) => gone(reference),
  referrers: async (reference) => gone(reference),
}

function gone(reference: Reference): never {
  throw new P2pfsError(
    'missing',
    `neither this host nor a peer that it reaches has all of ${formatReference(reference)}; such images are made by p2pfs import, on any host of the region`,
  )
}
