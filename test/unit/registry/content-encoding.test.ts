import assert from 'node:assert/strict'
import { test } from 'node:test'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { parseReference } from '../../../node/registry/reference.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { createClient, fails, signal } from '../../support/registry/fault-client.ts'
import { serve } from '../../support/registry/serve.ts'
import { answer, assertImage, config, describe, layer, manifest } from '../../support/registry/small-image.ts'

const manifestDigest = digestOf(Buffer.from(manifest))

for (const [name, encoding, encode] of [
  ['gzip', 'gzip', gzipSync],
  ['gzip without a word', undefined, gzipSync],
  ['deflate', 'deflate', deflateSync],
  ['brotli', 'br', brotliCompressSync],
  ['a false word', 'gzip', (bytes: Buffer) => bytes],
] as const) {
  test(`manifests and configs that come as ${name}, unasked, are decoded`, async (t) => {
    const host = await serve(t, (request, response) => {
      const isText = [config, manifest].find((text) => request.url?.endsWith(describe(text, '').digest)) ?? ''
      const text = request.url?.endsWith('latest') === true ? manifest : isText
      // A config says what it is only with the header.
      if (text === '' || (text === config && encoding === undefined)) return answer(request, response)
      response.writeHead(200, encoding === undefined ? {} : { 'content-encoding': encoding })
      response.end(encode(Buffer.from(text)))
    })
    const { source } = createClient(t, host)
    await assertImage(source, parseReference(`${host}/lab/app`))
    await assertImage(source, parseReference(`${host}/lab/app@${manifestDigest}`))
  })
}

test('a layer that the registry calls compressed, as it is, comes as it is stored', async (t) => {
  const host = await serve(t, (request, response) => {
    if (request.url?.endsWith(describe(layer, '').digest) === true) response.setHeader('content-encoding', 'gzip')
    answer(request, response)
  })
  const { source, reference } = createClient(t, host)
  await assertImage(source, reference)
})

test('a compressed manifest that is damaged, or has no end, is invalid', async (t) => {
  for (const body of [gzipSync(manifest).subarray(0, 100), gzipSync(Buffer.alloc(64 * 1024 * 1024))]) {
    const host = await serve(t, (_request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(body)
    })
    const { source, reference } = createClient(t, host)
    await assert.rejects(
      source.resolve(reference, 'linux/amd64', { signal }),
      fails('invalid', /answers with gzip that cannot be decoded/),
    )
  }
})
