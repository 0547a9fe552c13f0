import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const top = fileURLToPath(new URL('../..', import.meta.url))

/** All sources of the product, one after the other. */
const sources = ['node', 'cli', 'protocol']
  .flatMap((folder) =>
    readdirSync(join(top, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => readFileSync(join(top, folder, name), 'utf8')),
  )
  .join('\n')

test('every log line that the guides quote is one that the product writes', () => {
  const guide = readFileSync(join(top, 'docs/debugging.md'), 'utf8')
  const symptoms = guide.slice(guide.indexOf('## Symptoms'), guide.indexOf('## In the tests'))
  const quoted = [...symptoms.matchAll(/`((?:FUSE )?[a-z]+(?: [a-z;]+)+)`/g)].map(([, line]) => line!)
  assert.ok(quoted.length > 5, 'the guide quotes log lines')
  for (const line of quoted) assert.ok(sources.includes(line), `no source has: ${line}`)
})

test('a symptom stands in the guide once', () => {
  const guide = readFileSync(join(top, 'docs/debugging.md'), 'utf8')
  const symptoms = [...guide.matchAll(/^\| ([^|]+) \|/gm)]
    .map(([, symptom]) => symptom!)
    .filter((cell) => !/^-+$/.test(cell))
  assert.ok(symptoms.length > 30, 'the guide has tables')
  assert.deepEqual(
    symptoms.filter((symptom, index) => symptoms.indexOf(symptom) !== index),
    [],
  )
})

test('every file that the architecture names is there', () => {
  const text = readFileSync(join(top, 'ARCHITECTURE.md'), 'utf8')
  const files = new Set([...text.matchAll(/(?<![\w/.*-])[\w/.-]*\w\.(?:ts|sh|md)\b/g)].map(([file]) => file))
  assert.ok(files.size > 40, 'the architecture names files')
  const all = readdirSync(top, { recursive: true, encoding: 'utf8' }).filter((name) => !name.includes('node_modules'))
  for (const file of files)
    assert.ok(
      all.some((name) => name === file || name.endsWith(`/${file}`)),
      `no such file: ${file}`,
    )
})

test('every promise of SECURITY.md has the test that it names', () => {
  const promises = [
    ...readFileSync(join(top, 'SECURITY.md'), 'utf8').matchAll(/^\| .* \| `([\w/-]+\.test\.ts)`: (.*) \|$/gm),
  ]
  assert.ok(promises.length > 80, 'SECURITY.md makes promises')
  for (const [, file, title] of promises) {
    const source = readFileSync(join(top, 'test', file!), 'utf8').replaceAll("\\'", "'")
    assert.ok(source.includes(title!.trim()), `${file} has no test: ${title}`)
  }
})
