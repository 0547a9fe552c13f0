import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createGenerator, type Schema } from 'ts-json-schema-generator'
import packageManifest from '../../package.json' with { type: 'json' }
import { endpoints } from '../../node/control/endpoints.ts'
import type { OperationName } from '../../node/control/operations.ts'
import { statusOf, unauthorized, unexpected } from '../../node/control/problem.ts'

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url))
const source = (name: string): string => readFileSync(path(name), 'utf8')

/** The file of the document that the daemon gives out. */
export const descriptionFile = path('node/control/openapi.json')

interface Described {
  summary: string
  /** Names of types in `control/api.ts`. */
  request: string
  result: string
}

/**
 * Makes the OpenAPI document of the control API: types, parameters and descriptions from `api.ts` and `operations.ts`,
 * paths from `endpoints.ts`, statuses from `problem.ts`.
 */
export function makeDescription(): object {
  const operations = describedOperations()
  const types = [...operations.values()].flatMap(({ request, result }) => [request, result])
  const schemas = schemasOf([...types, 'Progress', 'Problem'])
  const paths: Record<string, Record<string, object>> = {}
  for (const [name, [method, path]] of Object.entries(endpoints)) {
    const operation = operations.get(name)
    if (operation === undefined) throw new Error(`operations.ts does not describe ${name}`)
    paths[path] = { ...paths[path], [method.toLowerCase()]: describe(name as OperationName, operation, schemas) }
  }
  const itself = { description: 'This document.', content: { 'application/json': { schema: { type: 'object' } } } }
  paths['/v1/openapi.json'] = {
    get: { operationId: 'openapi', summary: 'Describes the API.', responses: { 200: itself } },
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'p2pfs control API',
      version: 'v1',
      description:
        'HTTP on a unix socket of the host. Fields that a later daemon adds to a result are to be passed over. Errors are ' +
        'problem details of RFC 9457; programs match their code. With `Accept: application/x-ndjson` an answer has lines: ' +
        'progress, then the result or the error in the last one, under the status 200. Who may open the socket may send ' +
        'every request: there are no credentials for the API itself.',
      license: { name: packageManifest.license, identifier: packageManifest.license },
    },
    servers: [
      { url: 'http://p2pfs', description: 'unix socket /run/p2pfs/p2pfs.sock; the name of the host means nothing' },
    ],
    security: [],
    paths,
    components: { schemas, responses: problemResponses() },
  }
}

/** The document as text, as it is kept. */
export const descriptionText = (): string => `${JSON.stringify(makeDescription(), undefined, 1)}\n`

function describedOperations(): Map<string, Described> {
  const text = source('node/control/operations.ts')
  const members = text.slice(text.indexOf('export interface Operations {'))
  const found = members.matchAll(/\/\*\*((?:(?!\*\/)[^])*)\*\/\s+(\w+): Operation<(\w+), (\w+)>/g)
  return new Map(
    [...found].map(([, comment = '', name = '', request = '', result = '']) => [
      name,
      { summary: comment.replaceAll(/\s+\*?\s*/g, ' ').trim(), request, result },
    ]),
  )
}

/** Fields of results that may be fractions: times that reads have waited, counts that fade, and delays of the event loop. */
export const fractions: ReadonlySet<string> = new Set([
  'waitedSeconds',
  'failsInSeconds',
  'mounts',
  'p50',
  'p99',
  'max',
])

/** TypeScript has one type of numbers. All others here count something, in whole bytes, milliseconds, chunks and so on. */
const wholeNumbers = (name: string, value: unknown): unknown => {
  if (typeof value !== 'object' || value === null || fractions.has(name)) return value
  const { type } = value as { type?: unknown }
  if (type === 'number') return { ...value, type: 'integer' }
  return Array.isArray(type)
    ? { ...value, type: type.map((one: unknown) => (one === 'number' ? 'integer' : one)) }
    : value
}

/** JSON schemas of types in `api.ts`, and of all that these name. */
function schemasOf(types: string[]): Record<string, Schema> {
  const generator = createGenerator({
    path: path('node/control/api.ts'),
    tsconfig: path('tsconfig.json'),
    skipTypeCheck: true,
    additionalProperties: true,
    topRef: true,
    sortProps: false,
  })
  const schemas: Record<string, unknown> = {}
  for (const type of types) Object.assign(schemas, generator.createSchema(type).definitions)
  const text = JSON.stringify(sorted(schemas)).replaceAll('"#/definitions/', '"#/components/schemas/')
  return JSON.parse(text, wholeNumbers) as Record<string, Schema>
}

function describe(
  name: OperationName,
  { summary, request, result }: Described,
  schemas: Record<string, Schema>,
): object {
  const [method, path] = endpoints[name]
  const stream = {
    description: 'Each line is one of these; the last one is a result or an error.',
    oneOf: [
      ref('Progress'),
      { type: 'object', properties: { result: ref(result) }, required: ['result'] },
      { type: 'object', properties: { error: ref('Problem') }, required: ['error'] },
    ],
  }
  return {
    operationId: name,
    summary,
    ...(method === 'POST'
      ? { requestBody: { required: true, content: { 'application/json': { schema: ref(request) } } } }
      : { parameters: parametersOf(path, schemas[request]!) }),
    responses: {
      200: {
        description: 'It is done.',
        content: { 'application/json': { schema: ref(result) }, 'application/x-ndjson': { schema: stream } },
      },
      ...Object.fromEntries(
        Object.keys(problemResponses()).map((status) => [status, { $ref: `#/components/responses/${status}` }]),
      ),
    },
  }
}

function parametersOf(path: string, { properties = {}, required = [] }: Schema): object[] {
  return Object.entries(properties).map(([name, schema]) => {
    const { description, ...rest } = schema as Schema
    const where = path.includes(`{${name}}`) ? 'path' : 'query'
    return { name, in: where, required: required.includes(name), ...(description && { description }), schema: rest }
  })
}

/** The meaning of each status, in the words of `protocol/errors.ts`. */
function problemResponses(): Record<string, object> {
  const meanings = new Map<number, string[]>([
    [unauthorized, ['`denied`: the registry wants credentials']],
    [405, ['`unsupported`: the path does not take the method; Allow says which']],
    [413, ['`invalid`: the request is too long']],
    [unexpected, ['a mistake in the daemon, whose log says more']],
  ])
  for (const [, code = '', meaning = ''] of source('protocol/errors.ts').matchAll(/^ \* - `(\w+)`: (.*)$/gm)) {
    const status = statusOf[code as keyof typeof statusOf]
    meanings.set(status, [...(meanings.get(status) ?? []), `\`${code}\`: ${meaning}`])
  }
  const retry = {
    'Retry-After': { description: 'When to try again (s).', schema: { type: 'integer' } },
  }
  return Object.fromEntries(
    [...meanings].map(([status, lines]) => [
      status,
      {
        description: lines.join('\n'),
        ...(status === statusOf.unavailable && { headers: retry }),
        content: { 'application/problem+json': { schema: ref('Problem') } },
      },
    ]),
  )
}

const ref = (name: string): object => ({ $ref: `#/components/schemas/${name}` })

function sorted(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1)))
}
