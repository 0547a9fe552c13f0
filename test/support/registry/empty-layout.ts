import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { parseReference, type Reference } from '../../../node/registry/reference.ts'
import { temporaryDirectory } from '../temporary.ts'

/** An OCI layout without images, which goes with the test. */
export function emptyLayout(t: TestContext): Reference {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true })
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  writeFileSync(join(directory, 'index.json'), '{"schemaVersion":2,"manifests":[]}')
  return parseReference(`oci:${directory}`)
}
