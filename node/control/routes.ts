import type { Operation, OperationOptions, Operations } from './operations.ts'
import {
  parseCancelSeedRequest,
  parseDirectoryRequest,
  parseExportRequest,
  parseGcRequest,
  parseImageRequest,
  parseImportRequest,
  parseLimitsRequest,
  parseMountRequest,
  parsePinRequest,
  parsePushRequest,
  parseSeedJobRequest,
  parseSeedRequest,
  type RequestBody,
} from './requests.ts'

/** Parses a request body and runs the operation that it asks for. @throws invalid for a body that does not parse */
export type Route = (operations: Operations, body: RequestBody, options: OperationOptions) => Promise<object>

function route<Request>(
  parse: (body: RequestBody) => Request,
  choose: (operations: Operations) => Operation<Request, object>,
): Route {
  return async (operations, body, options) => await choose(operations).run(parse(body), options)
}

/** Every request of the API: method and path, parser, operation. */
export const routes: ReadonlyMap<string, Route> = new Map([
  ['GET /status', async (operations: Operations) => await operations.status.run()],
  ['POST /seed', route(parseSeedRequest, ({ seed }) => seed)],
  ['POST /seeds', route(parseSeedJobRequest, ({ placeSeed }) => placeSeed)],
  [
    'GET /seeds',
    route(
      (body) => body,
      ({ listSeeds }) => listSeeds,
    ),
  ],
  ['POST /seeds/cancel', route(parseCancelSeedRequest, ({ cancelSeed }) => cancelSeed)],
  ['POST /limits', route(parseLimitsRequest, ({ limits }) => limits)],
  ['POST /mount', route(parseMountRequest, ({ mount }) => mount)],
  ['POST /umount', route(parseDirectoryRequest, ({ umount }) => umount)],
  ['POST /reset', route(parseDirectoryRequest, ({ reset }) => reset)],
  ['POST /import', route(parseImportRequest, (operations) => operations.import)],
  ['POST /push', route(parsePushRequest, ({ push }) => push)],
  ['POST /export', route(parseExportRequest, (operations) => operations.export)],
  ['POST /inspect', route(parseImageRequest, ({ inspect }) => inspect)],
  ['POST /verify', route(parseImageRequest, ({ verify }) => verify)],
  [
    'GET /images',
    route(
      (body) => body,
      ({ listImages }) => listImages,
    ),
  ],
  ['POST /rm', route(parseImageRequest, ({ removeImage }) => removeImage)],
  ['POST /pin', route(parsePinRequest, ({ pin }) => pin)],
  ['POST /unpin', route(parseImageRequest, ({ unpin }) => unpin)],
  ['POST /gc', route(parseGcRequest, ({ gc }) => gc)],
])
