import type { AccessRules } from '../../test/support/registry/access.ts'
import type { Fault } from '../../test/support/registry/faults.ts'
import type { LoggedRequest } from '../../test/support/registry/front.ts'

export interface FaultRegistrySetup extends AccessRules {
  address: string
  port: number
  /** Directories of OCI layouts, by the repository of their images. */
  layouts: Record<string, string>
}

/** A message to the program, which answers each with one {@link FromFaultRegistry}. */
export type ToFaultRegistry =
  { setUp: FaultRegistrySetup } | { addFault: Fault } | { clearFaults: true } | { log: true }
export type FromFaultRegistry = { done: true } | { log: LoggedRequest[] }
