/** The faults and actions that a run can leave out. */
export const faultNames = [
  'symlinks',
  'renames',
  'flips',
  'truncations',
  'full-disk',
  'kills',
  'terminations',
  'replacements',
  'freezes',
  'restarts',
  'registry-cuts',
  'registry-pauses',
  'peer-cuts',
  'page-cache-drops',
  'power-cuts',
] as const

export type FaultName = (typeof faultNames)[number]

/** Off unless the run asks for it: supervisors hold the mounts, and are not killed in normal operation. */
export const offByDefault: readonly FaultName[] = ['power-cuts']
