import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageStorage } from './image-storage.ts'
import { formatReference, type Reference } from './reference.ts'

/** Images that were imported on a host. No storage has them: they are in the chunks of the hosts that hold them. */
export const localImages: ImageStorage = {
  manifest: async (reference) => fail(reference),
  digest: async (reference) => fail(reference),
  manifestByDigest: async (reference) => fail(reference),
  // oxlint-disable-next-line require-yield
  blob: async function* (reference) {
    fail(reference)
  },
  range: async (reference) => fail(reference),
  pushBlob: async (reference) => fail(reference),
  pushManifest: async (reference) => fail(reference),
  referrers: async (reference) => fail(reference),
}

function fail(reference: Reference): never {
  throw new P2pfsError(
    'missing',
    `neither this host nor a peer that it reaches has all of ${formatReference(reference)}; ` +
      'such images are made by p2pfs import, on any host of the region',
  )
}
