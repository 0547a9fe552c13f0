import type { OperationName } from './operations.ts'

export type Method = 'GET' | 'POST' | 'DELETE'

/**
 * Whether a request may be carried out twice, since it changes nothing or comes to the same result. A daemon that stops
 * undoes a mount that it has not finished. `reset` may find a half of its work done, and the source of an import may be
 * gone.
 */
type Repetition = 'repeatable' | 'once'

/** Every request of the API. GET and DELETE take their fields from path and query, POST takes a JSON object. */
export const endpoints = {
  status: ['GET', '/v1/status', 'repeatable'],
  listMounts: ['GET', '/v1/mounts', 'repeatable'],
  mount: ['POST', '/v1/mounts', 'repeatable'],
  umount: ['DELETE', '/v1/mounts', 'repeatable'],
  reset: ['POST', '/v1/mounts/reset', 'once'],
  placeSeed: ['POST', '/v1/seeds', 'repeatable'],
  listSeeds: ['GET', '/v1/seeds', 'repeatable'],
  cancelSeed: ['DELETE', '/v1/seeds/{id}', 'repeatable'],
  seed: ['POST', '/v1/images/seed', 'repeatable'],
  import: ['POST', '/v1/images/import', 'once'],
  push: ['POST', '/v1/images/push', 'once'],
  export: ['POST', '/v1/images/export', 'repeatable'],
  inspect: ['POST', '/v1/images/inspect', 'repeatable'],
  verify: ['POST', '/v1/images/verify', 'repeatable'],
  doctor: ['POST', '/v1/doctor', 'repeatable'],
  limits: ['GET', '/v1/limits', 'repeatable'],
  changeLimits: ['POST', '/v1/limits', 'repeatable'],
  listImages: ['GET', '/v1/images', 'repeatable'],
  removeImage: ['DELETE', '/v1/images', 'once'],
  pin: ['POST', '/v1/images/pin', 'repeatable'],
  unpin: ['POST', '/v1/images/unpin', 'once'],
  gc: ['POST', '/v1/gc', 'repeatable'],
} as const satisfies Record<OperationName, readonly [Method, `/v1/${string}`, Repetition]>
