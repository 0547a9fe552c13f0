import type { AccessRules } from '../../test/support/registry/access.ts'
import type { Fault } from '../../test/support/registry/faults.ts'
import type { LoggedRequest } from '../../test/support/registry/front.ts'

export interface FaultRegistrySetup extends AccessRules {
  address: string
  port: number
  /** Images of OCI layouts: repository to directory. */
  layouts: Record<string, string>
}

/** To the program, one message at a time; each is answered by one {@link FromFaultRegistry}. */
export type ToFaultRegistry =
  { setUp: FaultRegistrySetup } | { addFault: Fault } | { clearFaults: true } | { log: true }
export type FromFaultRegistry = { done: true } | { log: LoggedRequest[] }
