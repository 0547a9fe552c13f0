/** What stands behind a server of the lab: answers requests as a registry does when nothing is wrong. */
export interface RegistryBackend {
  answer: (request: BackendRequest) => Promise<Answer>
}

export interface BackendRequest {
  method: string
  /** Below the server's root, with the query. */
  url: URL
  /** Without Authorization; without Range where that is to be ignored. */
  headers: Record<string, string>
  body: AsyncIterable<Uint8Array>
  signal: AbortSignal
}

export interface Answer {
  status: number
  headers: Record<string, string>
  /** Of the body, where it is known. */
  length: number | undefined
  body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

export function jsonAnswer(status: number, value: unknown, headers: Record<string, string> = {}): Answer {
  const body = Buffer.from(JSON.stringify(value))
  return { status, headers: { 'content-type': 'application/json', ...headers }, length: body.length, body: [body] }
}

/** An error as the distribution specification has it. */
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
