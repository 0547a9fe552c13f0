import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  copyFileSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { MountResult, Placed } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'

const image = 'local:app'
/** A user who has nothing to do with any mount. */
const stranger = 65_534
/** A user whom a mount is made for. */
const vmm = 12_345

interface Outcome {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs a program as a user who is not root. `cwd` may be a directory to which that user could not get. */
function runAs(uid: number, argv: readonly string[], cwd = '/'): Outcome {
  const become = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups']
  // setpriv(1) has the capabilities of root until it executes a program, whose path it is to find without them.
  return spawnSync('setpriv', [...become, 'sh', '-c', 'exec "$@"', 'sh', ...argv], { cwd, encoding: 'utf8' })
}

/** Whether the user can open the file, and read its first bytes. */
const canRead = (uid: number, file: string): boolean => runAs(uid, ['head', '-c', '4096', file]).status === 0

/** A daemon with a directory that every user can enter, and an image with a setuid program and a device node. */
async function startDaemon(t: TestContext): Promise<DaemonProcess> {
  const daemon = await DaemonProcess.start(t)
  chmodSync(daemon.directory, 0o755)
  const source = daemon.target('source')
  copyFileSync('/usr/bin/id', join(source, 'id'))
  chmodSync(join(source, 'id'), 0o4755)
  execFileSync('mknod', ['-m', '666', join(source, 'zero'), 'c', '1', '5'])
  await daemon.json('import', source, 'app')
  return daemon
}

/** The powers that the setuid program and the device node of a tree give a stranger in it, such as a container's user. */
function powers(tree: string): { program: boolean; device: boolean } {
  const { stdout } = runAs(stranger, ['./id', '-u'], tree)
  const { status } = runAs(stranger, ['head', '-c', '1', 'zero'], tree)
  return { program: stdout === '0\n', device: status === 0 }
}

const all = { program: true, device: true }
const none = { program: false, device: false }

const replace = async (daemon: DaemonProcess): Promise<void> => {
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
}

test('rootfs.img opens for root and for owners of its mounts, and for no other user', async (t) => {
  const daemon = await startDaemon(t)
  const [plain, owned] = [daemon.target('plain'), daemon.target('owned')]
  const { rootfs } = await daemon.json<MountResult>('mount', image, plain)
  for (const uid of [stranger, vmm]) assert.equal(canRead(uid, rootfs), false)
  assert.match(runAs(stranger, ['head', '-c', '1', rootfs]).stderr, /Permission denied/)
  assert.deepEqual([statSync(rootfs).mode & 0o777, statSync(rootfs).uid], [0o400, 0])
  await daemon.json('mount', image, owned, '--owner', `${vmm}:${vmm}`)
  assert.ok(canRead(vmm, join(owned, 'rootfs.img')))
  assert.ok(canRead(vmm, rootfs), 'all mounts of a rootfs are one file')
  assert.equal(canRead(stranger, join(owned, 'rootfs.img')), false)
  assert.equal(runAs(vmm, ['test', '-r', rootfs]).status, 0)
  for (const asked of ['-r', '-x']) assert.equal(runAs(stranger, ['test', asked, rootfs]).status, 1)
  assert.equal(runAs(vmm, ['test', '-x', rootfs]).status, 1)
  assert.equal(readFileSync(rootfs).length, statSync(rootfs).size, 'root reads on')
})

test('owners of mounts are known to the next daemon, and their rights end with their mounts', async (t) => {
  const daemon = await startDaemon(t)
  const [plain, owned] = [daemon.target('plain'), daemon.target('owned')]
  const { rootfs } = await daemon.json<MountResult>('mount', image, plain)
  await daemon.json('mount', image, owned, '--owner', `${vmm}:${vmm}`)
  await replace(daemon)
  assert.ok(canRead(vmm, join(owned, 'rootfs.img')))
  assert.equal(canRead(stranger, rootfs), false)
  assert.deepEqual(
    Object.fromEntries((await daemon.status()).mounts.map(({ directory, owner }) => [directory, owner])),
    { [plain]: undefined, [owned]: { uid: vmm, gid: vmm } },
  )
  assert.equal((await daemon.cli('umount', owned)).status, 0)
  assert.equal(canRead(vmm, rootfs), false)
  await replace(daemon)
  for (const uid of [stranger, vmm]) assert.equal(canRead(uid, rootfs), false)
})

test('the kernel keeps the pages of rootfs.img when it is opened again', async (t) => {
  const daemon = await startDaemon(t)
  const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target('drive'))
  const served = async (): Promise<number> => {
    const { local, peer, registry } = (await daemon.status()).served
    return local.bytes + peer.bytes + registry.bytes
  }
  const first = readFileSync(rootfs)
  const before = await served()
  assert.ok(before >= first.length)
  assert.ok(first.equals(readFileSync(rootfs)))
  assert.equal(await served(), before)
})

test('a file that is open is read on while a daemon is replaced, whoever may open it by then', async (t) => {
  const daemon = await startDaemon(t)
  const directory = daemon.target('drive')
  const { rootfs } = await daemon.json<MountResult>('mount', image, directory, '--owner', `${vmm}:${vmm}`)
  const fd = openSync(rootfs, 'r')
  await replace(daemon)
  assert.equal(readSync(fd, Buffer.alloc(4096), 0, 4096, 4096), 4096)
  closeSync(fd)
})

test('the scratch drive is its owner’s, also after a reset', async (t) => {
  const daemon = await startDaemon(t)
  const directory = daemon.target('drive')
  const access = (path: string): number[] => [statSync(path).uid, statSync(path).gid, statSync(path).mode & 0o777]
  const options = ['--scratch', '16MiB', '--owner', `${vmm}:${vmm + 1}`]
  const { scratch = '' } = await daemon.json<MountResult>('mount', image, directory, ...options)
  assert.deepEqual(access(scratch), [vmm, vmm + 1, 0o600])
  await daemon.json<Placed>('reset', directory)
  assert.deepEqual(access(scratch), [vmm, vmm + 1, 0o600])
})

test('the image and the scratch lie in one directory: the owner opens both, and no other user either', async (t) => {
  const daemon = await startDaemon(t)
  const directory = daemon.target('drive')
  const options = ['--scratch', '16MiB', '--owner', `${vmm}:${vmm}`]
  const placed = await daemon.json<MountResult>('mount', image, directory, ...options)
  const [rootfs, scratch] = [join(directory, 'rootfs.img'), join(directory, 'scratch.img')]
  assert.deepEqual([placed.rootfs, placed.scratch], [rootfs, scratch])
  assert.deepEqual(readdirSync(directory), ['rootfs.img', 'scratch.img'])
  for (const file of [rootfs, scratch]) {
    assert.ok(canRead(vmm, file), file)
    assert.equal(canRead(stranger, file), false, file)
  }
  const write = (uid: number): Outcome => runAs(uid, ['dd', 'if=/dev/zero', `of=${scratch}`, 'count=1', 'conv=notrunc'])
  assert.equal(write(vmm).status, 0)
  assert.equal(write(stranger).status, 1)
  for (const uid of [0, vmm]) assert.match(runAs(uid, ['touch', join(directory, 'other')]).stderr, /Read-only|denied/)
})

for (const [how, enter] of [
  // As a jailer does it that has its own mount namespace, before the jail is closed.
  ['bound into it', 'mkdir -p $JAIL/drives; mount --rbind $DIR $JAIL/drives'],
  [
    'bound into it file by file',
    'mkdir -p $JAIL/drives; for f in rootfs.img scratch.img; do : > $JAIL/drives/$f; mount --bind $DIR/$f $JAIL/drives/$f; done',
  ],
] as const) {
  test(`a VMM in a chroot of another user has both drives ${how}, sees a reset, and keeps them from their end`, async (t) => {
    const daemon = await startDaemon(t)
    const [directory, jail] = [daemon.target('drive'), daemon.target('jail')]
    const options = ['--scratch', '16MiB', '--owner', `${vmm}:${vmm}`]
    const { rootfs, scratch = '' } = await daemon.json<MountResult>('mount', image, directory, ...options)
    const script = [
      enter,
      'mkdir $JAIL/usr && mount --bind /usr $JAIL/usr && for d in bin lib lib64; do ln -s usr/$d $JAIL/$d; done',
      `exec chroot --userspec=${vmm}:${vmm} --groups= $JAIL /bin/sh`,
    ].join(' && ')
    const shell = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
      env: { ...process.env, JAIL: jail, DIR: directory },
    })
    t.after(() => shell.kill('SIGKILL'))
    shell.stdout.setEncoding('utf8')
    let said = ''
    shell.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
    const ask = async (command: string): Promise<string> => {
      shell.stdin.write(`${command}\n`)
      const [line] = (await once(shell.stdout, 'data', { signal: AbortSignal.timeout(30_000) }).catch(
        (cause: unknown) => {
          throw new Error(said, { cause })
        },
      )) as [string]
      return line.trim()
    }
    const hash = createHash('sha256').update(readFileSync(rootfs)).digest('hex')
    assert.equal(await ask(`sha256sum < /drives/rootfs.img`), `${hash}  -`)
    const mark = `dd if=/drives/scratch.img bs=4 skip=2097152 count=1 status=none`
    const write = `printf mark | dd of=/drives/scratch.img bs=4 seek=2097152 conv=notrunc status=none`
    assert.equal(await ask(`${write}; ${mark}; echo`), 'mark')
    assert.equal(
      readFileSync(scratch)
        .subarray(2 ** 23, 2 ** 23 + 4)
        .toString(),
      'mark',
    )
    await daemon.json('reset', directory)
    assert.equal(await ask(`${mark} | tr -d '\\0' | wc -c`), '0')
    assert.equal(await ask('exec 3<>/drives/scratch.img; echo open'), 'open')
    for (const command of ['reset', 'umount'])
      assert.match((await daemon.cli(command, directory)).stderr, /scratch drive .* is in use/)
    assert.equal(await ask('exec 3>&-; echo closed'), 'closed')
    assert.equal((await daemon.cli('umount', directory)).status, 0)
    assert.deepEqual(daemon.mounts(), daemon.idleMounts)
    assert.deepEqual(readdirSync(join(daemon.directory, 'state/scratch')), [])
  })
}

for (const [name, options] of [
  ['a tree', []],
  ['an ext4 tree', ['--format', 'ext4']],
  ['a writable tree', ['--writable']],
  ['a limited tree', ['--writable', '--size', '16MiB']],
] as const) {
  test(`the setuid programs and device nodes of ${name} work where only root gets to it, and nowhere else`, async (t) => {
    const daemon = await startDaemon(t)
    const open = daemon.target('open')
    // A mount on a directory has the mode that the image gives its root.
    chmodSync(open, 0o700)
    const answer = await daemon.cli('mount', image, open, '--as', 'tree', ...options)
    assert.equal(answer.status, 0, answer.stderr)
    const { restricted } = JSON.parse(answer.stdout) as MountResult
    assert.deepEqual(restricted?.options, ['nosuid', 'nodev'])
    assert.match(restricted.reason, /others than root can enter .*open/)
    assert.match(answer.stderr, /setuid programs and device nodes .* do not work .*--allow-others/)
    assert.deepEqual(powers(open), none)
    assert.equal(runAs(stranger, [join(open, 'id'), '-u']).stdout, `${stranger}\n`, 'the user gets there')
    const vault = daemon.target('vault')
    chmodSync(vault, 0o700)
    execFileSync('mkdir', [join(vault, 'tree')])
    const tree = join(vault, 'tree')
    const closed = await daemon.json<MountResult>('mount', image, tree, '--as', 'tree', ...options)
    assert.equal(closed.restricted, undefined)
    assert.deepEqual(powers(tree), all)
    assert.equal(runAs(stranger, [join(tree, 'id'), '-u']).status, 126, 'the user does not get there')
    assert.deepEqual(powers(open), none, 'each mount has options of its own')
    await replace(daemon)
    assert.deepEqual([powers(open), powers(tree)], [none, all])
    for (const directory of [open, tree]) assert.equal((await daemon.cli('umount', directory)).status, 0)
    assert.deepEqual(daemon.mounts(), daemon.idleMounts)
  })
}

test('with --allow-others all of a tree works for everybody, also after a reset by the next daemon', async (t) => {
  const daemon = await startDaemon(t)
  const tree = daemon.target('tree')
  const options = ['--as', 'tree', '--writable', '--allow-others']
  assert.equal((await daemon.json<MountResult>('mount', image, tree, ...options)).restricted, undefined)
  assert.equal(runAs(stranger, [join(tree, 'id'), '-u']).stdout, '0\n')
  await replace(daemon)
  assert.equal((await daemon.json<Placed>('reset', tree)).restricted, undefined)
  assert.deepEqual(powers(tree), all)
})

test('a reset decides anew whether others get to the tree', async (t) => {
  const daemon = await startDaemon(t)
  const vault = daemon.target('vault')
  const tree = join(vault, 'tree')
  execFileSync('mkdir', [tree])
  chmodSync(vault, 0o700)
  assert.equal(
    (await daemon.json<MountResult>('mount', image, tree, '--as', 'tree', '--writable')).restricted,
    undefined,
  )
  chmodSync(vault, 0o755)
  assert.deepEqual((await daemon.json<Placed>('reset', tree)).restricted?.options, ['nosuid', 'nodev'])
  assert.deepEqual(powers(tree), none)
  chmodSync(vault, 0o700)
  assert.equal((await daemon.json<Placed>('reset', tree)).restricted, undefined)
  assert.deepEqual(powers(tree), all)
})

test('what the daemon starts has neither /dev/fuse nor the lock, the control socket or a socket of peers', async (t) => {
  const daemon = await startDaemon(t)
  await daemon.json('mount', image, daemon.target('tree'), '--as', 'tree')
  const { daemonPid } = await daemon.status()
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => statOf(pid).split(' ')[1] === String(daemonPid))
  assert.ok(children.length > 0, 'the shell that runs tools')
  for (const pid of children)
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const target = readlinkSync(`/proc/${pid}/fd/${fd}`)
      assert.ok(!['/dev/fuse', join(daemon.directory, 'state/lock')].includes(target), `${fd} of ${pid} is ${target}`)
      assert.ok(Number(fd) < 3 || !target.startsWith('socket:'), `${fd} of ${pid} is ${target}`)
    }
})

/** State and parent of a process, and more: proc(5), from the state on. */
function statOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '')
  } catch {
    return ''
  }
}

test('options for users are refused where they mean nothing, with what would', async (t) => {
  const daemon = await startDaemon(t)
  const directory = daemon.target('x')
  for (const [options, pattern] of [
    [['--as', 'tree', '--owner', '1:1'], /files of a tree have the owners that the image gives them/],
    [['--allow-others'], /--owner UID:GID lets a user open a drive/],
    [['--owner', 'root'], /--owner: an owner is UID:GID, two numbers/],
    [['--owner', '4294967295:0'], /--owner: an owner is UID:GID/],
  ] as const) {
    const answer = await daemon.cli('mount', image, directory, ...options)
    assert.equal(answer.status, 2, answer.stderr)
    assert.match(answer.stderr, pattern)
  }
})

test('an access control list that lets somebody in counts, and root’s own group does not', async (t) => {
  const daemon = await startDaemon(t)
  const vault = daemon.target('vault')
  const tree = join(vault, 'tree')
  execFileSync('mkdir', [tree])
  chmodSync(vault, 0o750)
  const mount = async (): Promise<MountResult> => await daemon.json<MountResult>('mount', image, tree, '--as', 'tree')
  assert.equal((await mount()).restricted, undefined)
  assert.equal((await daemon.cli('umount', tree)).status, 0)
  // A list as setfacl(1) makes it, which not every host has: system.posix_acl_access of linux/posix_acl_xattr.h.
  const entries = [
    [1, 7, -1],
    [2, 5, stranger],
    [4, 5, -1],
    [16, 5, -1],
    [32, 0, -1],
  ] as const
  const list = Buffer.alloc(4 + entries.length * 8)
  list.writeUInt32LE(2, 0)
  for (const [i, [tag, bits, id]] of entries.entries()) {
    list.writeUInt16LE(tag, 4 + i * 8)
    list.writeUInt16LE(bits, 6 + i * 8)
    list.writeInt32LE(id, 8 + i * 8)
  }
  execFileSync('python3', [
    '-c',
    'import os, sys; os.setxattr(sys.argv[1], "system.posix_acl_access", bytes.fromhex(sys.argv[2]))',
    vault,
    list.toString('hex'),
  ])
  assert.equal(statSync(vault).mode & 0o777, 0o750)
  assert.equal(runAs(stranger, ['ls', vault]).status, 0, 'the list lets the user in')
  assert.deepEqual((await mount()).restricted?.options, ['nosuid', 'nodev'])
  assert.deepEqual(powers(tree), none)
})
