import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { descriptorNames } from '../../../node/service/descriptors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const unit = readFileSync(fileURLToPath(new URL('../../../contrib/systemd/p2pfs.service', import.meta.url)), 'utf8')
const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0

test('systemd-analyze has nothing to say about the unit', { skip: hasSystemd ? false : 'no systemd-analyze' }, (t) => {
  const file = join(temporaryDirectory(t), 'p2pfs.service')
  // The program need not be installed.
  writeFileSync(file, unit.replaceAll('/usr/bin/p2pfs', '/bin/true'))
  const said = execFileSync('sh', ['-c', 'systemd-analyze verify --man=no "$1" 2>&1', 'sh', file], { encoding: 'utf8' })
  assert.equal(said, '')
})

test('the unit makes no mount namespace, in which nobody would see a mount', () => {
  const namespaces =
    /^(?:Private(?:Mounts|Tmp|Devices|Users)|Protect\w+|(?:ReadOnly|ReadWrite|Inaccessible|Exec|NoExec)Paths|Bind\w*Paths|MountFlags|TemporaryFileSystem|Root\w+|DynamicUser)=/m
  assert.doesNotMatch(unit, namespaces)
})

test('the unit has room for all descriptors, and its stop leaves the daemon alone', () => {
  const valueOf = (name: string): string | undefined => new RegExp(`^${name}=(.*)$`, 'm').exec(unit)?.[1]
  assert.ok(Number(valueOf('FileDescriptorStoreMax')) >= descriptorNames.length)
  assert.equal(valueOf('KillMode'), 'process')
  assert.equal(valueOf('KillSignal'), 'SIGUSR2')
  assert.equal(valueOf('RestartPreventExitStatus'), '2 78')
})
