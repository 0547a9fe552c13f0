import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { commands as all } from '../../../cli/commands.ts'
import { describeCommands } from '../../../cli/described-commands.ts'
import { helpOf } from '../../../cli/help.ts'
import { manPage } from '../../../cli/man-page.ts'
import { describeOptions } from '../../../node/config/described-options.ts'

const commands = await describeCommands(all)
const page = manPage(commands, '2026-01-31')

test('the manual has every command and option, those of the daemon too', () => {
  assert.match(page, /^\.Dd January 31, 2026$/m)
  const flags = (text: string): Set<string> =>
    new Set([...text.matchAll(/^\.It Fl \\-(\S+)/gm)].map(([, flag]) => flag!))
  for (const { name, options } of commands) {
    const said = flags(page.split(/^\.S[sh] /m).find((part) => part.startsWith(`p2pfs ${name}:`))!)
    for (const option of Object.keys(options)) assert.ok(said.has(option.replaceAll('-', '\\-')), `${name} --${option}`)
  }
  for (const option of Object.keys(describeOptions())) assert.ok(flags(page).has(option.replaceAll('-', '\\-')), option)
})

test('mandoc finds nothing to complain of', (t) => {
  const { error, stdout } = spawnSync('mandoc', ['-T', 'lint'], { input: page, encoding: 'utf8' })
  if (error !== undefined) return t.skip('there is no mandoc')
  assert.equal(stdout, '')
})

test('a line that roff would take for its own is text', () => {
  const [first] = commands
  const odd = manPage([{ ...first!, text: '.Sh is \\no section', options: {} }], '2026-01-31')
  assert.match(odd, /^\\&\.Sh is \\eno section$/m)
})

test('every help fits a terminal of 120 columns, and has all options', () => {
  for (const command of commands) {
    const help = helpOf(command)
    for (const line of help.split('\n')) assert.ok(line.length <= 120, `${command.name}: ${line}`)
    for (const option of Object.keys(command.options)) assert.match(help, new RegExp(`^  --${option}\\b`, 'm'))
  }
})
