import type { Commands } from './command.ts'

/** All commands, as the help lists them. */
export const commands: Commands = {
  daemon: { summary: 'run the p2pfs node of this host', load: async () => await import('./daemon.ts') },
  keygen: { summary: 'make the key of a region', load: async () => await import('./keygen.ts') },
  seed: {
    summary: 'place all of an image, on this host or on others, before it is needed',
    load: async () => await import('./seed.ts'),
  },
  seeds: { summary: 'list or cancel orders of seed in the region', load: async () => await import('./seeds.ts') },
  mount: {
    summary: 'mount the root filesystem of an image, as a drive or as a tree',
    load: async () => await import('./mount.ts'),
  },
  reset: { summary: 'give a mount a fresh scratch drive or upper layer', load: async () => await import('./reset.ts') },
  umount: { summary: 'end a mount', load: async () => await import('./umount.ts') },
  import: {
    summary: 'make an image from a directory, a tar file or an OCI layout',
    load: async () => await import('./import.ts'),
  },
  push: {
    summary: 'put a raw image into a registry, for other regions',
    load: async () => await import('./push.ts'),
  },
  export: {
    summary: 'write the complete block image of an image to a file',
    load: async () => await import('./export.ts'),
  },
  inspect: {
    summary: 'show layers, files and chunks of an image, and what it shares',
    load: async () => await import('./inspect.ts'),
  },
  verify: {
    summary: 'rebuild an image from its layers and compare the result with what is in use',
    load: async () => await import('./verify.ts'),
  },
  images: {
    summary: 'list the images of this host, and what they take',
    load: async () => await import('./images.ts'),
  },
  rm: { summary: 'remove an image from this host', load: async () => await import('./rm.ts') },
  pin: { summary: 'keep an image from eviction', load: async () => await import('./pin.ts') },
  unpin: { summary: 'let a pinned image be evicted again', load: async () => await import('./unpin.ts') },
  gc: { summary: 'remove what no image of this host needs, now', load: async () => await import('./gc.ts') },
  limits: {
    summary: 'show or change limits on bandwidth, while the daemon runs',
    load: async () => await import('./limits.ts'),
  },
  status: {
    summary: 'show the region, peers, images, mounts, and where data came from',
    load: async () => await import('./status.ts'),
  },
  doctor: {
    summary: 'look at what p2pfs needs on this host, and say what to do',
    load: async () => await import('./doctor.ts'),
  },
  completion: {
    summary: 'print the completion of these commands for a shell',
    load: async () => await import('./completion.ts'),
  },
}
