import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { bashCompletion } from '../../../cli/completion/bash.ts'
import { fishCompletion } from '../../../cli/completion/fish.ts'
import { zshCompletion } from '../../../cli/completion/zsh.ts'
import { commands as all } from '../../../cli/commands.ts'
import { describeCommands } from '../../../cli/described-commands.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const commands = await describeCommands(all)

/** The output of a shell for a script; the test is skipped where there is no such shell. */
function shell(t: TestContext, name: string, argv: readonly string[], input?: string): string | undefined {
  const { error, status, stdout, stderr } = spawnSync(name, argv, { encoding: 'utf8', input })
  if (error !== undefined) {
    t.skip(`there is no ${name}`)
    return undefined
  }
  assert.equal(status, 0, stderr)
  return stdout
}

test('every shell is told of every command and option', () => {
  for (const [script, flag] of [
    [bashCompletion(commands), (option: string) => `--${option}`],
    [zshCompletion(commands), (option: string) => `--${option}[`],
    [fishCompletion(commands), (option: string) => ` -l ${option} `],
  ] as const)
    for (const { name, options } of commands) {
      assert.ok(script.includes(name), name)
      for (const option of Object.keys(options)) assert.ok(script.includes(flag(option)), `${name} --${option}`)
    }
})

test('bash offers commands, options, choices and paths', (t) => {
  const offers = (...words: string[]): string[] | undefined => {
    const line = words.map((word) => `'${word}'`).join(' ')
    const script = `${bashCompletion(commands)}\nCOMP_WORDS=(p2pfs ${line}); COMP_CWORD=${words.length}; _p2pfs; printf '%s\\n' "\${COMPREPLY[@]}"`
    return shell(t, 'bash', ['-c', script])
      ?.split('\n')
      .filter((word) => word !== '')
  }
  assert.deepEqual(offers('mou'), ['mount'])
  assert.deepEqual(offers('mount', '--wri'), ['--writable'])
  assert.deepEqual(offers('mount', 'x', '--as', ''), ['drive', 'tree'])
  assert.deepEqual(offers('daemon', '--bulk', 'o'), ['on', 'off'])
  assert.deepEqual(offers('umount', '/et'), ['/etc'])
  const directory = temporaryDirectory(t)
  writeFileSync(join(directory, 'a file'), '')
  assert.deepEqual(offers('import', `${directory}/a`), [`${directory}/a file`])
  assert.deepEqual(offers('completion', 'z'), ['zsh'])
  assert.deepEqual(offers('mount', 'x', '--size', ''), [])
})

test('fish offers the same', (t) => {
  const script = join(temporaryDirectory(t), 'p2pfs.fish')
  writeFileSync(script, fishCompletion(commands))
  const offers = (line: string): string[] | undefined =>
    shell(t, 'fish', ['--no-config', '-c', `source ${script}; complete -C '${line}'`])
      ?.split('\n')
      .map((offer) => offer.split('\t')[0]!)
      .filter((word) => word !== '')
  const first = offers('p2pfs mou')
  if (first === undefined) return
  assert.deepEqual(first, ['mount'])
  assert.deepEqual(offers('p2pfs mount --wri'), ['--writable'])
  assert.deepEqual(offers('p2pfs mount x --as '), ['drive', 'tree'])
  assert.deepEqual(offers('p2pfs umount /et'), ['/etc/'])
})

test('zsh takes its completion', (t) => {
  shell(t, 'zsh', ['-n'], zshCompletion(commands))
})
