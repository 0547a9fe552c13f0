/**
 * The control API: HTTP on a unix socket, with JSON bodies. An answer is one JSON object, the result or a {@link Problem};
 * for those who accept `application/x-ndjson` one object per line: any number of {@link Progress} lines, then one
 * {@link Outcome}. Fields that a later version adds are to be passed over.
 */

export type * from './api/call.ts'
export type * from './api/image-request.ts'
export type * from './api/seeds.ts'
export type * from './api/seed-jobs.ts'
export type * from './api/mounts.ts'
export type * from './api/files.ts'
export type * from './api/publishing.ts'
export type * from './api/inspection.ts'
export type * from './api/images.ts'
export type * from './api/verification.ts'
export type * from './api/doctor.ts'
export type * from './api/limits.ts'
export type * from './api/status.ts'
export type * from './api/mount-list.ts'
export { limitNames } from './api/limits.ts'
