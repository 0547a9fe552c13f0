import type {
  CancelSeedRequest,
  EmptyRequest,
  EmptyResult,
  DoctorRequest,
  DoctorResult,
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
  MountList,
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

/**
 * All operations of the daemon. `endpoints.ts` has the path of each. These comments are the descriptions of
 * the OpenAPI document and of the client's methods.
 */
export interface Operations {
  /** Shows the region, peers, images, mounts, and where data came from. */
  status: Operation<EmptyRequest, Status>
  /** Lists the mounts of this host. */
  listMounts: Operation<EmptyRequest, MountList>
  /** Mounts the root filesystem of an image on a directory, as a drive or as a tree. */
  mount: Operation<MountRequest, MountResult>
  /** Ends a mount, and removes its scratch drive or upper layer. */
  umount: Operation<UmountRequest, EmptyResult>
  /** Gives a mount a fresh scratch drive or upper layer. */
  reset: Operation<ResetRequest, Placed>
  /** Makes an image whole on this host. */
  seed: Operation<SeedRequest, SeedResult>
  /** Gives an order to the region: hosts that are to hold an image before it is needed. */
  placeSeed: Operation<SeedJobRequest, SeedJobResult>
  /** Lists the orders of the region, newest first. */
  listSeeds: Operation<EmptyRequest, SeedJobs>
  /** Ends an order: its image is no longer pinned, and stays. */
  cancelSeed: Operation<CancelSeedRequest, SeedJobReport>
  /** Makes the image `local:NAME` of a directory, a tar, an OCI layout or a disk image. */
  import: Operation<ImportRequest, SeedResult>
  /** Puts a raw image into a registry, for other regions. */
  push: Operation<PushRequest, PushResult>
  /** Writes the complete block image of an image to a file of this host. */
  export: Operation<ExportRequest, ExportResult>
  /** Shows layers, files and chunks of an image, and what it shares. */
  inspect: Operation<InspectRequest, InspectResult>
  /** Rebuilds an image from its layers and compares the result with what is in use. */
  verify: Operation<VerifyRequest, VerifyResult>
  /** Checks what only the daemon can: the region, clocks, and the registry of an image. */
  doctor: Operation<DoctorRequest, DoctorResult>
  /** Shows the limits on this host's bandwidth, and what passes now. */
  limits: Operation<EmptyRequest, Limits>
  /** Changes limits at once, until they are changed again. */
  changeLimits: Operation<LimitsRequest, Limits>
  /** Lists the images of this host, and what they take. */
  listImages: Operation<EmptyRequest, ImageList>
  /** Removes an image from this host, and the data that no other image here has. */
  removeImage: Operation<ImageNameRequest, RemoveImageResult>
  /** Keeps an image of this host from eviction. */
  pin: Operation<PinRequest, PinResult>
  /** Lets a pinned image be evicted again. */
  unpin: Operation<ImageNameRequest, PinResult>
  /** Removes what no image of this host needs, and what is beyond the limit of the store. */
  gc: Operation<GcRequest, GcResult>
}

export type OperationName = keyof Operations
export type RequestOf<Name extends OperationName> = Parameters<Operations[Name]['run']>[0]
export type ResultOf<Name extends OperationName> = Awaited<ReturnType<Operations[Name]['run']>>
