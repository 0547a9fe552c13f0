import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const top = fileURLToPath(new URL('..', import.meta.url))

/** Relative imports of each source file, as paths from the top. */
function importsBelow(folder: string): { file: string; imported: string }[] {
  return readdirSync(join(top, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => {
      const file = join(folder, name)
      const source = readFileSync(join(top, file), 'utf8')
      return [...source.matchAll(/(?:from|import\(|import) ?'(\.[^']+)'/g)].map(([, path]) => ({
        file,
        imported: relative(top, normalize(join(top, dirname(file), path!))),
      }))
    })
}

const parts = ['registry', 'image', 'store', 'peers', 'fetch', 'seed', 'publish', 'mount', 'control']
/** What a part may use besides protocol/ and its own folder; seed/ and publish/ name images as the registry client does. */
const shared = ['node/log.ts', 'node/single-flight.ts', 'node/byte-size.ts', 'node/urgency.ts']
const typesFrom: Record<string, string[]> = {
  seed: ['node/registry/', 'node/fetch/chunk-request.ts'],
  publish: ['node/registry/', 'node/fetch/chunk-request.ts'],
}

test('protocol/ knows nobody, so that it can be read and reused alone', () => {
  for (const { file, imported } of importsBelow('protocol'))
    assert.ok(imported.startsWith('protocol/'), `${file} imports ${imported}`)
})

for (const part of parts) {
  test(`node/${part}/ knows protocol/ and not its neighbours: daemon.ts puts them together`, () => {
    for (const { file, imported } of importsBelow(`node/${part}`)) {
      const allowed = ['protocol/', `node/${part}/`, ...shared, ...(typesFrom[part] ?? [])]
      assert.ok(
        allowed.some((prefix) => imported.startsWith(prefix)),
        `${file} imports ${imported}`,
      )
    }
  })
}

test('cli/ speaks to the control API only; p2pfs daemon alone loads the node itself', () => {
  for (const { file, imported } of importsBelow('cli')) {
    const allowed = ['cli/', 'node/control/', 'node/byte-size.ts', 'protocol/errors.ts', 'package.json']
    if (file === 'cli/daemon.ts') allowed.push('node/main.ts', 'node/config.ts')
    assert.ok(
      allowed.some((prefix) => imported.startsWith(prefix)),
      `${file} imports ${imported}`,
    )
  }
})

test('netlab/ starts daemons as processes: it knows the command line, not the node', () => {
  for (const { file, imported } of importsBelow('netlab')) {
    const allowed = ['netlab/', 'protocol/', 'node/control/api.ts']
    assert.ok(
      allowed.some((prefix) => imported.startsWith(prefix)),
      `${file} imports ${imported}`,
    )
  }
})
