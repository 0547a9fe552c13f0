import type { Option } from './option.ts'
import { hostOptions } from './host-options.ts'
import { regionOptions } from './region-options.ts'
import { otherRegionOptions } from './other-region-options.ts'
import { limitOptions } from './limit-options.ts'
import { registryOptions } from './registry-options.ts'
import { regionWorkOptions } from './region-work-options.ts'
import { imageOptions } from './image-options.ts'
import { mountOptions } from './mount-options.ts'
import { storeOptions } from './store-options.ts'

/**
 * Declares every option of the daemon once. Its flag (`--state-dir`), its environment variable (`P2PFS_STATE_DIR`), its
 * key in the configuration file (`stateDir`) and its line in the help follow from this table.
 */
export const options = {
  ...hostOptions,
  ...regionOptions,
  ...otherRegionOptions,
  ...limitOptions,
  ...registryOptions,
  ...regionWorkOptions,
  ...imageOptions,
  ...mountOptions,
  ...storeOptions,
} as const

export type Config = { [Name in keyof typeof options]: (typeof options)[Name] extends Option<infer T> ? T : never }
export type OptionName = keyof Config

export const optionNames = Object.keys(options) as OptionName[]
export const flagOf = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
export const variableOf = (name: string): string => `P2PFS_${flagOf(name).replaceAll('-', '_').toUpperCase()}`
