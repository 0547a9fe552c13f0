import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { Validator } from '@seriousme/openapi-schema-validator'
import { silentLog } from '../../../node/base/log.ts'
import { endpoints } from '../../../node/control/endpoints.ts'
import { ControlServer } from '../../../node/control/server.ts'
import { descriptionFile, descriptionText, fractions } from '../../support/openapi.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { FakeOperations } from './fake-operations.ts'

const kept = readFileSync(descriptionFile, 'utf8')

interface Description {
  paths: Record<string, Record<string, { operationId: string; summary: string; parameters?: { in: string }[] }>>
}

test('the OpenAPI document is what the types say; npm run openapi makes it anew', () => {
  assert.ok(kept === descriptionText(), 'node/control/openapi.json is out of date: npm run openapi')
})

test('the OpenAPI document is valid', async () => {
  const result = await new Validator().validate(JSON.parse(kept) as Record<string, unknown>)
  assert.deepEqual(result, { valid: true })
})

test('the OpenAPI document has every request, with its method, its summary and the fields that its path names', () => {
  const { paths } = JSON.parse(kept) as Description
  for (const [name, [method, path]] of Object.entries(endpoints)) {
    const operation = paths[path]?.[method.toLowerCase()]
    assert.equal(operation?.operationId, name)
    assert.notEqual(operation.summary, '')
    const named = operation.parameters?.filter((parameter) => parameter.in === 'path').length ?? 0
    assert.equal(named, path.match(/\{/g)?.length ?? 0, path)
  }
  assert.equal(Object.values(paths).flatMap(Object.keys).length, Object.keys(endpoints).length + 1)
})

test('numbers are integers in the document, but for those that may be fractions', () => {
  const found = new Set<string>()
  JSON.parse(kept, (name, value: unknown) => {
    const { type } = (value ?? {}) as { type?: unknown }
    if (type === 'number' || (Array.isArray(type) && type.includes('number'))) found.add(name)
    return value
  })
  assert.deepEqual([...found].toSorted(), [...fractions].toSorted())
  assert.match(kept, /"sizeBytes": \{\s+"type": "integer"/)
})

test('a daemon gives out the document', async (t) => {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const server = new ControlServer({ operations: new FakeOperations().operations, log: silentLog }, { socket })
  await server.start()
  t.after(async () => await server.stop())
  const sent = request({ socketPath: socket, path: '/v1/openapi.json', agent: false }).end()
  const [response] = (await once(sent, 'response')) as [AsyncIterable<Buffer> & { statusCode: number }]
  let text = ''
  for await (const piece of response) text += piece.toString()
  assert.equal(response.statusCode, 200)
  assert.ok(text === kept)
})

test('the guide of the API names every operation, and those that are not sent twice', () => {
  const guide = readFileSync(new URL('../../../docs/api.md', import.meta.url), 'utf8')
  const methods = guide.slice(guide.indexOf('A method for each operation'))
  const once = methods.slice(methods.indexOf('what may be done twice'), methods.indexOf('It has no dependencies'))
  for (const [name, [, , repetition]] of Object.entries(endpoints)) {
    assert.ok(methods.includes(`\`${name}\``), `docs/api.md does not name ${name}`)
    assert.equal(once.includes(`\`${name}\``), repetition === 'once', name)
  }
})
