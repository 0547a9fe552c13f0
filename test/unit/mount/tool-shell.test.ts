import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { runTool, toolEnvironment } from '../../../node/mount/placement/run-tool.ts'
import { ToolShell } from '../../../node/mount/placement/tool-shell.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** The shells that are this process's own children: proc(5). */
function ownShells(): number[] {
  const stats = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/stat`, 'latin1')
      } catch {
        return ''
      }
    })
  return stats
    .map((stat) => /^(\d+) \(sh\) \S (\d+) /.exec(stat))
    .filter((found) => Number(found?.[2]) === process.pid)
    .map((found) => Number(found?.[1]))
}

test('tools run side by side, each with its own answer', async (t) => {
  const shell = new ToolShell()
  t.after(() => shell.stop())
  const others = join(temporaryDirectory(t), 'others')
  let answered = 0
  const answers = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      // The first ends when all others have: it holds up nobody.
      const wait = i === 0 ? `until [ -e '${others}' ]; do sleep 0.01; done` : ':'
      const result = await shell.run('sh', ['-c', `${wait}; echo said ${i}; exit ${i % 3}`])
      if (++answered === 19) writeFileSync(others, '')
      return result
    }),
  )
  for (const [i, answer] of answers.entries()) assert.deepEqual(answer, { ok: i % 3 === 0, message: `said ${i}` })
})

test('arguments reach the tool as they are', async (t) => {
  const shell = new ToolShell()
  t.after(() => shell.stop())
  const words = ["it's", 'two words', '$HOME', '`id`', '\\', '"', '', 'a\nb', '-n', '*', 'caf\u00e9']
  const { message } = await shell.run('sh', ['-c', `printf '<%s>' "$@"`, 'sh', ...words])
  assert.equal(message, words.map((word) => `<${word}>`).join(''))
})

test('tools get the PATH without places that depend on the working directory, and nothing else', async (t) => {
  const shell = new ToolShell()
  t.after(() => shell.stop())
  const before = { ...process.env }
  t.after(() => void Object.assign(process.env, before))
  Object.assign(process.env, { PERL5OPT: '-Mstrict', LD_PRELOAD: '', HOME: '/root', PATH: `.::bin:${before['PATH']}` })
  t.after(() => void delete process.env['PERL5OPT'])
  const { message } = await shell.run('sh', ['-c', 'env; echo "path $PATH"'])
  assert.match(message, new RegExp(`^path ${before['PATH']}$`, 'm'))
  for (const name of ['PERL5OPT', 'LD_PRELOAD', 'HOME']) assert.doesNotMatch(message, new RegExp(`^${name}=`, 'm'))
  assert.deepEqual(toolEnvironment({ PATH: './bin:/a::b:/c', IFS: 'x' }), { PATH: '/a:/c', LC_ALL: 'C' })
  assert.deepEqual(await runTool('sh', ['-c', '[ -z "$HOME$PERL5OPT" ]']), { ok: true, message: '' })
})

test('a tool that is missing, prints a lot, or reads its input has an outcome', async (t) => {
  const shell = new ToolShell()
  t.after(() => shell.stop())
  const absent = await shell.run('p2pfs-no-such-tool', [])
  assert.equal(absent.ok, false)
  assert.match(absent.message, /not found/)
  const long = await shell.run('seq', ['100000'])
  assert.ok(long.ok && long.message.length <= 3500)
  assert.deepEqual(await shell.run('cat', []), { ok: true, message: '' })
})

test('a shell that dies fails what runs, and another takes its place', async (t) => {
  const shell = new ToolShell()
  t.after(() => shell.stop())
  const running = shell.run('sleep', ['5'])
  await shell.run('true', [])
  for (const pid of ownShells()) process.kill(pid, 'SIGKILL')
  assert.equal((await running).ok, false)
  assert.deepEqual(await shell.run('echo', ['again']), { ok: true, message: 'again' })
})
