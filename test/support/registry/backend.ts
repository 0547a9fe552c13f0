/** The backend of a registry of the lab. It answers as a registry without faults. */
export interface RegistryBackend {
  answer: (request: BackendRequest) => Promise<Answer>
}

export interface BackendRequest {
  method: string
  /** The path below the server's root, with the query. */
  url: URL
  /** Never has Authorization; has no Range if that is to be ignored. */
  headers: Record<string, string>
  body: AsyncIterable<Uint8Array>
  signal: AbortSignal
}

export interface Answer {
  status: number
  headers: Record<string, string>
  /** The length of the body, if it is known. */
  length: number | undefined
  body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

export function jsonAnswer(status: number, value: unknown, headers: Record<string, string> = {}): Answer {
  const body = Buffer.from(JSON.stringify(value))
  return { status, headers: { 'content-type': 'application/json', ...headers }, length: body.length, body: [body] }
}

/** An error in the form of the distribution specification. */
export function failed(status: number, code: string, headers: Record<string, string> = {}): Answer {
  return jsonAnswer(
    status,
    { errors: [{ code, message: code.toLowerCase().replaceAll('_', ' '), detail: {} }] },
    headers,
  )
}

export function emptyAnswer(status: number, headers: Record<string, string> = {}): Answer {
  return { status, headers, length: 0, body: [] }
}
