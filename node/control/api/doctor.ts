import type { Auth } from './image-request.ts'

/** `POST /v1/doctor` answers with a {@link DoctorResult}. */
export interface DoctorRequest {
  /** An image whose registry is asked. Without it no registry is. */
  image?: string
  /** Default: the platform that the daemon is configured for. */
  platform?: string
  /** Instead of the daemon's own credentials. */
  auth?: Auth
}

export interface DoctorResult {
  /** What only the daemon can look at: peers, clocks, registry. */
  checks: Check[]
  stateDir: string
  /** The daemon's options as they count, without secrets. */
  config: Record<string, unknown>
}

/** One thing that was looked at. */
export interface Check {
  name: string
  /** `problem`: something does not work; `warning`: it may come to that; `left-out`: it could not be looked at. */
  state: 'ok' | 'warning' | 'problem' | 'left-out'
  /** What was found, for a person. */
  found: string
  /** What to do about it. */
  advice?: string
}
