import type {
  CancelSeedRequest,
  ExportRequest,
  ExportResult,
  GcRequest,
  GcResult,
  ImageList,
  ImageNameRequest,
  ImportRequest,
  InspectRequest,
  InspectResult,
  Limits,
  LimitsRequest,
  MountRequest,
  MountResult,
  PinRequest,
  PinResult,
  Placed,
  Progress,
  PushRequest,
  PushResult,
  RemoveImageResult,
  ResetRequest,
  SeedJobReport,
  SeedJobRequest,
  SeedJobResult,
  SeedJobs,
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

/** One thing that users can ask of the daemon. */
export interface Operation<Request, Result> {
  /** @throws a P2pfsError whose message is for the user */
  run: (request: Request, options: OperationOptions) => Promise<Result>
}

/** All that users can ask of the daemon. */
export interface Operations {
  status: { run: () => Promise<Status> }
  seed: Operation<SeedRequest, SeedResult>
  placeSeed: Operation<SeedJobRequest, SeedJobResult>
  listSeeds: Operation<object, SeedJobs>
  cancelSeed: Operation<CancelSeedRequest, SeedJobReport>
  limits: Operation<LimitsRequest, Limits>
  mount: Operation<MountRequest, MountResult>
  umount: Operation<UmountRequest, Record<string, never>>
  reset: Operation<ResetRequest, Placed>
  import: Operation<ImportRequest, SeedResult>
  push: Operation<PushRequest, PushResult>
  export: Operation<ExportRequest, ExportResult>
  inspect: Operation<InspectRequest, InspectResult>
  verify: Operation<VerifyRequest, VerifyResult>
  listImages: Operation<object, ImageList>
  removeImage: Operation<ImageNameRequest, RemoveImageResult>
  pin: Operation<PinRequest, PinResult>
  unpin: Operation<ImageNameRequest, PinResult>
  gc: Operation<GcRequest, GcResult>
}
