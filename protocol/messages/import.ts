import { encodeCbor, Fields, parseCbor } from '../cbor.ts'
import type { Digest } from '../digest.ts'
import { errorCodes, P2pfsError, type ErrorCode } from '../errors.ts'
import {
  encodeImageRecord,
  parseImageName,
  parseImageRecord,
  type ImageName,
  type ImageRecord,
} from '../image-record.ts'

/** One request per stream; progress while the import runs, then one answer. */
export const importProtocol = '/p2pfs/import/2'

export const maxImportRequestBytes = 4096
/** Longest answer (bytes): an image record with an image manifest, which has up to 4 MiB. */
export const maxImportAnswerBytes = 8 * 1024 * 1024
/** Layers that one message names at most. */
export const maxLayersPerMessage = 256

export interface ImportRequest extends ImageName {
  /** Digest of the image manifest that the reference stands for, as the asker sees it. */
  manifestDigest: Digest
}

export type ImportAnswer =
  /** Also the steward's sign of life: it is sent whether there is progress or not. */
  | {
      type: 'progress'
      /** Bytes of the compressed layers. */
      doneBytes: number
      totalBytes: number
      /**
       * Diff ids of layers that were read meanwhile. The asker takes their indexes now, because the steward may be
       * lost.
       */
      layers: Digest[]
    }
  | { type: 'image'; record: ImageRecord }
  | { type: 'refused'; code: ErrorCode }

/** SPEC.md, "Import protocol". */
export function encodeImportRequest({ reference, platform, format, manifestDigest }: ImportRequest): Uint8Array {
  return encodeCbor({ reference, platform, format, manifestDigest })
}

/** @throws invalid */
export function parseImportRequest(bytes: Uint8Array): ImportRequest {
  const fields = new Fields(parseCbor(bytes, 'import request'), 'import request')
  return { ...parseImageName(fields), manifestDigest: fields.digest('manifestDigest') }
}

export function encodeImportAnswer(answer: ImportAnswer): Uint8Array {
  return answer.type === 'image'
    ? encodeCbor({ type: answer.type, record: encodeImageRecord(answer.record) })
    : encodeCbor(answer)
}

/** @throws invalid */
export function parseImportAnswer(bytes: Uint8Array): ImportAnswer {
  const fields = new Fields(parseCbor(bytes, 'import answer'), 'import answer')
  const type = fields.text('type')
  switch (type) {
    case 'progress': {
      const totalBytes = fields.unsigned('totalBytes')
      const list = fields.list('layers')
      if (list.length > maxLayersPerMessage) throw new P2pfsError('invalid', 'import answer: too many layers')
      const layers = new Fields(list, 'import answer: layers')
      return {
        type,
        doneBytes: fields.unsigned('doneBytes', totalBytes),
        totalBytes,
        layers: list.map((_, i) => layers.digest(i)),
      }
    }
    case 'image':
      return { type, record: parseImageRecord(fields.bytes('record')) }
    case 'refused': {
      const text = fields.text('code')
      const code = errorCodes.find((candidate) => candidate === text)
      if (code === undefined) throw new P2pfsError('invalid', `import answer: unknown code ${text.slice(0, 20)}`)
      return { type, code }
    }
    default:
      throw new P2pfsError('invalid', `import answer: unknown type ${type.slice(0, 20)}`)
  }
}
