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

/** How a script ends that cannot do its work. */
const lacksModule = 77
/** A shell that waits for good is a fault (ms). */
const timeoutMs = 60_000

/** The output of a shell for a script; the test is skipped where there is no such shell. */
function shell(t: TestContext, name: string, argv: readonly string[], input?: string): string | undefined {
  const { error, status, stdout, stderr } = spawnSync(name, argv, { encoding: 'utf8', input, timeout: timeoutMs })
  if ((error !== undefined && 'code' in error && error.code === 'ENOENT') || status === lacksModule) {
    t.skip(`there is no ${name}, or it lacks a module`)
    return undefined
  }
  assert.equal(status, 0, `${error?.message ?? ''} ${stderr} ${stdout}`)
  return stdout
}

test('every shell is told of every command and option', () => {
  for (const [script, flag] of [
    [bashCompletion(commands), (option: string) => new RegExp(`--${option}\\b`)],
    [zshCompletion(commands), (option: string) => new RegExp(`--${option}=?\\[`)],
    [fishCompletion(commands), (option: string) => new RegExp(` -l ${option} `)],
  ] as const)
    for (const { name, options } of commands) {
      assert.ok(script.includes(name), name)
      for (const option of Object.keys(options)) assert.match(script, flag(option), `${name} --${option}`)
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
  assert.deepEqual(offers('mount', '--as', '='), ['drive', 'tree'])
  assert.deepEqual(offers('mount', '--as', '=', 't'), ['tree'])
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
  assert.deepEqual(offers('p2pfs help umo'), ['umount'])
})

/** Types a line into a zsh with the completion, and a tab; prints the line as it then is. */
const zshTyping = `zmodload zsh/zpty || exit ${lacksModule}
zpty z zsh -f -i -o no_zle
say() { zpty -w z "$1"; }
say 'PS1=; autoload -Uz compinit; compinit -u -D; . '$1
say 'cd /; widget() { zle complete-word; print -r -- "<$BUFFER>"; BUFFER=; }; zle -N widget; bindkey "^I" widget'
# What is typed before the line editor has the terminal may never reach it.
say 'zle-line-init() { print -r -- "<edi""tor>"; }; zle -N zle-line-init; setopt zle'
zpty -r z out '*<editor>*'
shift
for line; do
  zpty -w -n z "$line"$'\\t'
  zpty -r z out '*<p2pfs*>*'
  out=\${out%>*}
  print -r -- "\${out##*<}"
done`

test('zsh offers the same', (t) => {
  const script = join(temporaryDirectory(t), '_p2pfs')
  writeFileSync(script, zshCompletion(commands))
  const typed: Record<string, string> = {
    'p2pfs mou': 'p2pfs mount ',
    'p2pfs hel': 'p2pfs help ',
    'p2pfs help umo': 'p2pfs help umount ',
    'p2pfs mount --wri': 'p2pfs mount --writable ',
    'p2pfs mount --as t': 'p2pfs mount --as tree ',
    'p2pfs mount --as=t': 'p2pfs mount --as=tree ',
    'p2pfs umount /et': 'p2pfs umount /etc/',
    'p2pfs import --raw /etc/passw': 'p2pfs import --raw /etc/passwd',
    'p2pfs completion z': 'p2pfs completion zsh ',
    'p2pfs seeds c': 'p2pfs seeds cancel ',
  }
  const said = shell(t, 'zsh', ['-f', '-c', zshTyping, 'zsh', script, ...Object.keys(typed)])
  if (said === undefined) return
  for (const [index, [line, wanted]] of Object.entries(typed).entries())
    assert.ok(said.split('\n')[index]?.startsWith(wanted), `${line}: ${said.split('\n')[index]}`)
})
