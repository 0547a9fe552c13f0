import { defaultKeepFree, parseKeepFree } from '../base/keep-free.ts'
import { size, text } from './option.ts'

/** The disk that the store takes. */
export const storeOptions = {
  storeLimit: size(
    0,
    'what chunks and the files for native reads may take on the disk; beyond it, what is used least and last is evicted',
    'none',
  ),
  storeKeepFree: text(
    'SIZE|PERCENT',
    defaultKeepFree,
    'how much of the disk stays free, whoever fills it; only what this host has fetched or made is removed for that',
    { fallbackText: '10%, or 10GiB where that is less', check: parseKeepFree },
  ),
} as const
