import type { Lies } from '../../node/publish/lies.ts'

/** The memory of a host that has caught nobody. */
export const noLies: Pick<Lies, 'isLiar' | 'isContradicted'> = { isLiar: () => false, isContradicted: () => false }
