/**
 * The source that is believed about what a reference stands for: `digest`, the reference itself, which is the digest of
 * the image manifest; `registry`, the registry, asked for this call; `own-past`, this host, which asked the registry
 * earlier or made the image itself; `listed-key`, a host whose key the operator lists; `member`, a member of the
 * region, on its word alone.
 */
export const nameBeliefs = ['digest', 'registry', 'own-past', 'listed-key', 'member'] as const
export type NameBelief = (typeof nameBeliefs)[number]

/**
 * The source that is believed about which rootfs an image is: `built`, this host, which has read the layers;
 * `told-layers`, this host, which made it of layer indexes that members told and nobody signed; `listed-key`, a maker
 * whose key the operator lists; `member`, a maker who was a member of the region, on its word alone.
 */
export const indexBeliefs = ['built', 'told-layers', 'listed-key', 'member'] as const
export type IndexBelief = (typeof indexBeliefs)[number]

/** The two sources that are believed about a rootfs that this host uses for a name. */
export interface Belief {
  name: NameBelief
  /** Peer id of the host that stated the name; present for `listed-key` and `member`. */
  namedBy?: string
  index: IndexBelief
  /** Peer id of the host that signed for the rootfs; present for `listed-key` and `member`. */
  maker?: string
}

/** Whether nothing but the word of members says which rootfs the image is: it is verified later. */
export function isOnMembersWord({ index }: Pick<Belief, 'index'>): boolean {
  return index === 'member' || index === 'told-layers'
}
