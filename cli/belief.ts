import type { Belief, IndexBelief, NameBelief } from '../node/model/belief.ts'

const names: Record<NameBelief, string> = {
  digest: 'named by its digest',
  registry: 'named by the registry',
  'own-past': 'named by the registry when this host asked',
  'listed-key': 'named by a listed key',
  member: 'named on the word of a member',
}

const indexes: Record<IndexBelief, string> = {
  built: 'built here from its layers',
  'told-layers': 'made here from layer indexes of members, not verified',
  'listed-key': 'built by a listed key',
  member: 'built by a member, not verified',
}

/** Says who is believed about an image. */
export function describeBelief(belief: Belief | undefined): string {
  if (belief === undefined) return 'nobody is believed about it: it is resolved anew'
  const { name, namedBy, index, maker } = belief
  const by = (key: string | undefined): string => (key === undefined ? '' : ` ${key}`)
  return `${names[name]}${by(namedBy)}; ${indexes[index]}${by(maker)}`
}
