import assert from 'node:assert/strict'
import { test } from 'node:test'
import { authorize } from '../../../node/registry/authorization.ts'
import { chooseChallenge } from '../../../node/registry/challenge.ts'
import { layersOf, parseManifest } from '../../../node/registry/image-manifest.ts'
import { candidatesFor } from '../../../node/registry/index-candidates.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { mutate, runFuzz, type Random } from '../../support/fuzz.ts'

const digest = `sha256:${'ab'.repeat(32)}`
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 1000 }
const manifest = {
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  config: { ...layer, size: 10 },
  layers: [layer, layer],
}
const index = {
  schemaVersion: 2,
  manifests: [
    {
      ...layer,
      platform: { os: 'linux', architecture: 'amd64' },
      annotations: { 'org.opencontainers.image.ref.name': 'latest' },
    },
    { ...layer, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
  ],
}
const config = {
  os: 'linux',
  architecture: 'amd64',
  config: { Env: ['A=b'] },
  rootfs: { type: 'layers', diff_ids: [digest, digest] },
}

const strange: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  Number.MAX_SAFE_INTEGER,
  '',
  'x',
  digest.toUpperCase(),
  [],
  {},
  [null],
  [[]],
  { size: -1 },
  '\ud800',
  'x'.repeat(100_000),
]

/** The same value with one of its parts, at any depth, strange, gone or doubled. */
function mutateJson(value: unknown, random: Random): unknown {
  if (random.below(4) === 0 || typeof value !== 'object' || value === null) return strange[random.below(strange.length)]
  if (Array.isArray(value)) {
    if (value.length === 0 || random.below(6) === 0) return [...(value as unknown[]), ...(value as unknown[])]
    const index = random.below(value.length)
    return value.map((part: unknown, i) => (i === index ? mutateJson(part, random) : part))
  }
  const entries = Object.entries(value)
  const index = random.below(entries.length)
  if (random.below(6) === 0) return Object.fromEntries(entries.filter((_, i) => i !== index))
  return Object.fromEntries(entries.map(([key, part], i) => [key, i === index ? mutateJson(part, random) : part]))
}

function damage(value: unknown, random: Random): string {
  let changed = value
  for (let n = random.below(3); n > 0; n--) changed = mutateJson(changed, random)
  const text = Buffer.from(JSON.stringify(changed) ?? '')
  return (random.below(3) === 0 ? mutate(text, random) : text).toString()
}

test('manifests, indexes and configs that are damaged in any way are read, or refused', async () => {
  await runFuzz(async (random) => {
    const parsed = parseManifest(damage(random.below(2) === 0 ? index : manifest, random), 'the manifest')
    if (parsed.kind === 'index') candidatesFor(parsed.entries, 'linux/amd64', 'the image')
    layersOf(damage(manifest, random), damage(config, random))
  })
})

test('references of any text are read, or refused as invalid', async () => {
  const samples = [
    'docker.io/library/debian:12',
    `host:5000/a/b@${digest}`,
    'oci:/some/directory:tag',
    '[::1]:5000/x',
    'a'.repeat(300),
  ]
  await runFuzz(async (random) => {
    let text = Buffer.from(samples[random.below(samples.length)]!)
    for (let n = 1 + random.below(4); n > 0; n--) text = Buffer.from(mutate(text, random))
    parseReference(text.toString('latin1'))
  })
})

test('whatever a token service answers ends in a token, or in an error that says what is wrong', async () => {
  const { signal } = new AbortController()
  await runFuzz(async (random) => {
    const challenge = mutate(
      Buffer.from('Bearer realm="https://auth.example/token",service="registry",scope="repository:a:pull"'),
      random,
    ).toString('latin1')
    const body = damage({ token: 'abc', expires_in: 300 }, random)
    const http = { text: async () => ({ status: 200, headers: {}, body }) }
    try {
      const { header, expiresAtMs } = await authorize(
        chooseChallenge({ 'www-authenticate': challenge }),
        { http, now: () => 0 },
        { scope: 'repository:a:pull', registry: 'host', credentials: undefined, isSecure: true, signal },
      )
      assert.match(header, /^Bearer \S/)
      assert.ok(Number.isFinite(expiresAtMs))
    } catch (error) {
      if (!isP2pfsError(error, 'denied', 'unavailable')) throw error
    }
  })
})
