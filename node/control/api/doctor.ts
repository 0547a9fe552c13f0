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
  /** Checks that only the daemon can make: of peers, clocks and the registry. */
  checks: Check[]
  stateDir: string
  /** The daemon's options as they count, without secrets. */
  config: Record<string, unknown>
}

/** The result of one check. */
export interface Check {
  name: string
  /** `problem`: something does not work; `warning`: it may come to that; `left-out`: it could not be looked at. */
  state: 'ok' | 'warning' | 'problem' | 'left-out'
  /** The finding, for a person. */
  found: string
  /** Advice for a person, where there is something to do. */
  advice?: string
}
