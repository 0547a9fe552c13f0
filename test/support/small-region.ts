import type { AvailabilityParts } from '../../node/peers/availability.ts'

/** The location of a region in which all are connected to all: no tracker is told or asked anything. */
export const inSmallRegion: Pick<AvailabilityParts, 'swarms' | 'location'> = {
  location: {
    isSmall: true,
    hold: () => undefined,
    release: () => undefined,
    onScale: () => undefined,
  },
  swarms: {
    use: () => false,
    join: async () => await Promise.reject(new Error('a swarm is joined in a small region')),
    joined: () => [],
    seek: () => undefined,
    leave: () => undefined,
  },
}
