import type { ImageRequest } from './image-request.ts'

export interface ImportRequest {
  /** Absolute path of a directory or a tar file, or `oci:DIR[:TAG]`; with `raw`, of a file or a pipe. */
  source: string
  name: string
  /** Whether the source is a finished disk image, which stays as it is. There is no `format` then. */
  raw?: boolean
  format?: string
  platform?: string
}

export interface ExportRequest extends ImageRequest {
  /** Absolute path. An existing file is replaced once everything is written. */
  file: string
}

export interface ExportResult {
  file: string
  /** The rootfs digest. */
  digest: string
  sizeBytes: number
}
