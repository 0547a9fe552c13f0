import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryDirectory } from '../../support/temporary.ts'

const program = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))
const logModule = new URL('../../../node/base/log.ts', import.meta.url).href

test('a command whose reader is gone ends without a word, as one that SIGPIPE ends', () => {
  const closed = spawnSync('bash', ['-c', `exec 3> >(true); wait $!; exec >&3 "$0" completion bash`, program], {
    encoding: 'utf8',
  })
  assert.deepEqual([closed.status, closed.stderr], [141, ''])
})

test('a log whose reader is gone does not end who writes it', () => {
  const writer = `import { stderrLog } from ${JSON.stringify(logModule)}
const log = stderrLog('info', 'test')
for (let i = 0; i < 3; i++) {
  log.info('nobody reads this')
  await new Promise((over) => setTimeout(over, 10))
}
console.log('still here')`
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', writer]
  const out = execFileSync('bash', ['-c', 'exec 2> >(true); wait $!; exec "$@"', 'bash', ...node], { encoding: 'utf8' })
  assert.equal(out, 'still here\n')
})

test('p2pfs daemon --check says whether options and file can be used, and starts nothing', (t) => {
  const file = join(temporaryDirectory(t), 'config.json')
  const check = (text: string) => {
    writeFileSync(file, text)
    return spawnSync(program, ['daemon', '--check', '--config', file], { encoding: 'utf8' })
  }
  assert.deepEqual(check('{"readDeadline": "2m"}').status, 0)
  const wrong = check('{"insecureRegistries": ["a.test"]}')
  assert.equal(wrong.status, 78)
  assert.match(wrong.stderr, /unknown option: insecureRegistries/)
  assert.doesNotMatch(wrong.stderr, /fullMesh/, 'options for tests are not offered')
})
