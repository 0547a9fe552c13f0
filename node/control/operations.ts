import type {
  ExportRequest,
  ExportResult,
  ImportRequest,
  InspectRequest,
  InspectResult,
  MountRequest,
  MountResult,
  Placed,
  Progress,
  ResetRequest,
  SeedRequest,
  SeedResult,
  Status,
  UmountRequest,
  VerifyRequest,
  VerifyResult,
} from './api.ts'

export interface OperationOptions {
  /** Aborted when the caller goes away or the daemon stops. */
  signal: AbortSignal
  onProgress: (progress: Progress['progress']) => void
}

/** What users can ask of the daemon. All methods throw a P2pfsError whose message is for the user. */
export interface Operations {
  status: () => Promise<Status>
  seed: (request: SeedRequest, options: OperationOptions) => Promise<SeedResult>
  mount: (request: MountRequest, options: OperationOptions) => Promise<MountResult>
  umount: (request: UmountRequest, options: OperationOptions) => Promise<Record<string, never>>
  reset: (request: ResetRequest, options: OperationOptions) => Promise<Placed>
  import: (request: ImportRequest, options: OperationOptions) => Promise<SeedResult>
  export: (request: ExportRequest, options: OperationOptions) => Promise<ExportResult>
  inspect: (request: InspectRequest, options: OperationOptions) => Promise<InspectResult>
  verify: (request: VerifyRequest, options: OperationOptions) => Promise<VerifyResult>
}
