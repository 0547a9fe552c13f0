import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ancestorsOf, isChangeable } from '../../../node/base/directory-access.ts'
import { Reach } from '../../../node/mount/placement/reach.ts'

type Directories = Record<string, [mode: number, uid?: number, gid?: number]>

/** Finds what lets others to `path`, where `lists` have an access control list and `/` is root's with mode 755. */
async function reach(
  path: string,
  directories: Directories,
  lists: string[] = [],
  ok = true,
): Promise<string | undefined> {
  const all: Directories = { '/': [0o755], ...directories }
  const parts = {
    run: async (command: string, argv: readonly string[]) => {
      assert.deepEqual([command, argv.slice(0, 2)], ['ls', ['-ldn', '--']])
      const directory = argv[2]!
      return { ok, message: `drwxr-x---${lists.includes(directory) ? '+' : ''} 2 0 0 4096 Jan  1 00:00 ${directory}` }
    },
    stat: async (directory: string) => {
      const [mode, uid = 0, gid = 0] = all[directory] ?? assert.fail(`not asked for: ${directory}`)
      return { mode: 0o040000 | mode, uid, gid }
    },
  }
  return await new Reach(parts).ofOthers(path)
}

test('a directory of root above the mount that others cannot enter keeps them out, and its own mode does not', async () => {
  for (const mode of [0o700, 0o600, 0o750, 0o710, 0o770, 0o2700, 0o1700])
    assert.equal(await reach('/a/b/m', { '/a': [mode], '/a/b': [0o755] }), undefined, mode.toString(8))
  assert.equal(await reach('/a/b/m', { '/a': [0o755], '/a/b': [0o700] }), undefined)
  for (const mode of [0o755, 0o711, 0o701, 0o751])
    assert.match((await reach('/a/m', { '/a': [mode], '/a/m': [0o700] })) ?? '', /others than root can enter \/a\/m/)
  assert.match((await reach('/m', {})) ?? '', /can enter \/m/)
})

test('a directory of another user, or of a group that is not root’s, keeps nobody out', async () => {
  assert.match((await reach('/a/m', { '/a': [0o700, 1000] })) ?? '', /can change \/a/)
  assert.match((await reach('/a/m', { '/a': [0o750, 0, 1000] })) ?? '', /can enter/)
  assert.match((await reach('/a/m', { '/a': [0o710, 0, 1000] })) ?? '', /can enter/)
  assert.equal(await reach('/a/m', { '/a': [0o700, 0, 1000] }), undefined)
})

test('a directory that others can put another in the place of keeps nobody out', async () => {
  const vault: Directories = { '/home/eve/vault': [0o700] }
  assert.match(
    (await reach('/home/eve/vault/m', { '/home': [0o755], '/home/eve': [0o755, 1000], ...vault })) ?? '',
    /eve/,
  )
  assert.match((await reach('/t/vault/m', { '/t': [0o777], '/t/vault': [0o700] })) ?? '', /can change \/t/)
  assert.match((await reach('/t/vault/m', { '/t': [0o775, 0, 5], '/t/vault': [0o700] })) ?? '', /can change \/t/)
  assert.equal(await reach('/tmp/vault/m', { '/tmp': [0o1777], '/tmp/vault': [0o700] }), undefined, 'the sticky bit')
})

test('an access control list may let others in where the group bits do, and what cannot be told counts as one', async () => {
  const directories: Directories = { '/a': [0o750] }
  assert.equal(await reach('/a/m', directories), undefined)
  assert.match((await reach('/a/m', directories, ['/a'])) ?? '', /can enter/)
  assert.match((await reach('/a/m', directories, [], false)) ?? '', /can enter/)
  assert.equal(await reach('/a/m', { '/a': [0o700] }, ['/a']), undefined, 'the group bits are its mask')
})

test('a path has all the directories above it, and the root has none', () => {
  assert.deepEqual(ancestorsOf('/a/b/c'), ['/', '/a', '/a/b'])
  assert.deepEqual(ancestorsOf('/'), [])
})

test('a directory is changed by its owner and by who may write it, unless these are trusted or it is sticky', () => {
  const by = (mode: number, uid: number, gid: number, trusted?: number): boolean =>
    isChangeable({ mode, uid, gid }, trusted === undefined ? {} : { trusted })
  assert.deepEqual([by(0o755, 0, 0), by(0o775, 0, 0), by(0o775, 0, 1), by(0o757, 0, 0)], [false, false, true, true])
  assert.deepEqual([by(0o700, 1000, 0), by(0o700, 1000, 0, 1000), by(0o1777, 0, 0)], [true, false, false])
})
