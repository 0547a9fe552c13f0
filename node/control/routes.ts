import type { OperationOptions, Operations } from './operations.ts'
import {
  parseDirectoryRequest,
  parseExportRequest,
  parseImageRequest,
  parseImportRequest,
  parseMountRequest,
  parseSeedRequest,
  type RequestBody,
} from './requests.ts'

/** Parses a request body and runs the operation that it asks for. @throws invalid for a body that does not parse */
export type Route = (operations: Operations, body: RequestBody, options: OperationOptions) => Promise<object>

function route<Request>(
  parse: (body: RequestBody) => Request,
  run: (operations: Operations, request: Request, options: OperationOptions) => Promise<object>,
): Route {
  return async (operations, body, options) => await run(operations, parse(body), options)
}

/** Every request of the API: method and path, parser, operation. */
export const routes: ReadonlyMap<string, Route> = new Map([
  ['GET /status', async (operations: Operations) => await operations.status()],
  ['POST /seed', route(parseSeedRequest, async (operations, ...request) => await operations.seed(...request))],
  ['POST /mount', route(parseMountRequest, async (operations, ...request) => await operations.mount(...request))],
  ['POST /umount', route(parseDirectoryRequest, async (operations, ...request) => await operations.umount(...request))],
  ['POST /reset', route(parseDirectoryRequest, async (operations, ...request) => await operations.reset(...request))],
  ['POST /import', route(parseImportRequest, async (operations, ...request) => await operations.import(...request))],
  ['POST /export', route(parseExportRequest, async (operations, ...request) => await operations.export(...request))],
  ['POST /inspect', route(parseImageRequest, async (operations, ...request) => await operations.inspect(...request))],
  ['POST /verify', route(parseImageRequest, async (operations, ...request) => await operations.verify(...request))],
])
