import assert from 'node:assert/strict'
import {
  appendFile,
  chmod,
  chown,
  link,
  lutimes,
  mkdir,
  rename,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { readTree, type Tree } from '../../../netlab/images/directory-tree.ts'
import { oddImage } from '../../../netlab/images/images.ts'
import { unpackWithUmoci } from '../../../netlab/images/lab-image.ts'
import { run } from '../../../netlab/hosts/process.ts'
import { compareTrees, differences } from '../../../netlab/images/tree-compare.ts'

let directory: string
let original: Tree
let originalPath: string

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'p2pfs-test-'))
  originalPath = await unpackWithUmoci(await oddImage(), join(directory, 'bundle'))
  // Each test copies the tree: it is smaller without these thousand files.
  await keepingTime(
    originalPath,
    'odd/many',
    async () => await run('find', [join(originalPath, 'odd/many'), '-type', 'f', '-delete']),
  )
  original = await readTree(originalPath)
})

after(() => rmSync(directory, { recursive: true, force: true }))

/** Copies the tree and tampers with the copy. @returns the differences, as `path aspect` */
async function found(tamper: (root: string) => Promise<unknown>): Promise<string[]> {
  const copy = join(directory, 'copy')
  await rm(copy, { recursive: true, force: true })
  await run('cp', ['--archive', originalPath, copy])
  await tamper(copy)
  return differences(original, await readTree(copy)).map(({ path, aspect }) => `${path} ${aspect}`)
}

/** Keeps the mtime of the path, which would be another difference. */
async function keepingTime(root: string, path: string, action: () => Promise<unknown>): Promise<void> {
  const stamp = join(mkdtempSync(join(directory, 'stamp-')), 'stamp')
  writeFileSync(stamp, '')
  await run('touch', ['--no-dereference', `--reference=${join(root, path)}`, stamp])
  await action()
  await run('touch', ['--no-dereference', `--reference=${stamp}`, join(root, path)])
}

test('finds nothing between a tree and its copy', async () => {
  assert.deepEqual(await found(async () => undefined), [])
})

test('finds an added, a removed and a renamed file', async () => {
  assert.deepEqual(
    await found((root) => keepingTime(root, 'odd', async () => await writeFile(join(root, 'odd/added'), ''))),
    ['odd/added presence'],
  )
  assert.deepEqual(await found((root) => keepingTime(root, 'odd', async () => await rm(join(root, 'odd/fifo')))), [
    'odd/fifo presence',
  ])
  assert.deepEqual(
    await found((root) =>
      keepingTime(root, 'odd', async () => await rename(join(root, 'odd/disk'), join(root, 'odd/disc'))),
    ),
    ['odd/disc presence', 'odd/disk presence'],
  )
})

const changes: Record<string, { expected: string[]; tamper: (root: string) => Promise<unknown> }> = {
  'one byte of content': {
    expected: ['odd/big content'],
    tamper: async (root) =>
      await keepingTime(root, 'odd/big', async () => {
        await run('dd', [`of=${join(root, 'odd/big')}`, 'bs=1', 'seek=3000000', 'conv=notrunc', 'status=none'], {
          input: Buffer.from('!'),
        })
      }),
  },
  'a length': {
    expected: ['odd/zeros sizeBytes', 'odd/zeros content'],
    tamper: async (root) =>
      await keepingTime(root, 'odd/zeros', async () => await truncate(join(root, 'odd/zeros'), 1 << 19)),
  },
  'an appended byte': {
    expected: ['odd/empty sizeBytes', 'odd/empty content'],
    tamper: async (root) =>
      await keepingTime(root, 'odd/empty', async () => await appendFile(join(root, 'odd/empty'), 'x')),
  },
  'a permission': { expected: ['odd/page mode'], tamper: async (root) => await chmod(join(root, 'odd/page'), 0o640) },
  'the setuid bit': {
    expected: ['odd/setuid mode'],
    tamper: async (root) => await chmod(join(root, 'odd/setuid'), 0o755),
  },
  'an owner': { expected: ['odd/page uid'], tamper: async (root) => await chown(join(root, 'odd/page'), 1, 0) },
  'a group of a device': {
    expected: ['odd/disk gid'],
    tamper: async (root) => await chown(join(root, 'odd/disk'), 0, 7),
  },
  'a nanosecond': {
    expected: ['odd/page mtime'],
    tamper: async (root) => await run('touch', ['--date=2024-07-01T00:00:00.123456788Z', join(root, 'odd/page')]),
  },
  'the time of a directory': {
    expected: ['odd/many mtime'],
    tamper: async (root) => await utimes(join(root, 'odd/many'), 5, 5),
  },
  'the time of a symlink': {
    expected: ['odd/link mtime'],
    tamper: async (root) => await lutimes(join(root, 'odd/link'), 5, 5),
  },
  'the time of the root': { expected: [' mtime'], tamper: async (root) => await utimes(root, 5, 5) },
  'the mode of the root': { expected: [' mode'], tamper: async (root) => await chmod(root, 0o700) },
  'an attribute': {
    expected: ['odd/attributes xattrs'],
    tamper: async (root) =>
      await run('setfattr', ['--name=user.binary', '--value=0x00ff0a3d5d', join(root, 'odd/attributes')]),
  },
  'a capability that is gone': {
    expected: ['odd/capability xattrs'],
    tamper: async (root) => await run('setfattr', ['--remove=security.capability', join(root, 'odd/capability')]),
  },
  'an attribute of a directory': {
    expected: ['odd xattrs'],
    tamper: async (root) => await run('setfattr', ['--remove=user.directory', join(root, 'odd')]),
  },
  'an attribute of a symlink': {
    expected: ['odd/link xattrs'],
    tamper: async (root) =>
      await run('setfattr', ['--no-dereference', '--name=trusted.x', '--value=y', join(root, 'odd/link')]),
  },
  'an attribute of a file whose name is not text': {
    expected: ['odd/new\nline and \\ and "quotes" \x01 xattrs'],
    tamper: async (root) =>
      await run('setfattr', ['--name=user.x', '--value=y', join(root, 'odd/new\nline and \\ and "quotes" \x01')]),
  },
  'the content of a file whose name is not UTF-8': {
    expected: ['odd/caf\xe9 is latin-1 content'],
    tamper: async (root) => {
      writeFileSync(Buffer.from(`${root}/odd/caf\xe9 is latin-1`, 'latin1'), Buffer.alloc(700))
      await run('sh', ['-c', 'touch --reference="$1"/odd/page "$1"/odd/caf*latin-1', 'sh', root])
    },
  },
  'the target of a symlink': {
    expected: ['odd/link linkTarget'],
    tamper: async (root) =>
      await keepingTime(root, 'odd', async () => {
        await keepingTimeOfReplaced(root, 'odd/link', async (path) => await symlink('nowhere/at ALL', path))
        await run('chown', ['--no-dereference', '5:6', join(root, 'odd/link')])
      }),
  },
  'a device number': {
    expected: ['odd/null device'],
    tamper: async (root) =>
      await keepingTime(root, 'odd', async () => {
        await keepingTimeOfReplaced(
          root,
          'odd/null',
          async (path) => await run('mknod', ['--mode=666', path, 'c', '1', '5']),
        )
      }),
  },
  'a type': {
    expected: ['odd/fifo type', 'odd/fifo sizeBytes'],
    tamper: async (root) =>
      await keepingTime(root, 'odd', async () => {
        await keepingTimeOfReplaced(root, 'odd/fifo', async (path) => await writeFile(path, '', { mode: 0o600 }))
      }),
  },
  'a hard link that became a copy': {
    expected: ['odd/hard-1 links', 'odd/hard-2 links', 'odd/hard-3 links', 'odd/hard-4 links', 'odd/hard-4 sameAs'],
    tamper: async (root) =>
      await keepingTime(root, 'odd', async () => {
        await rm(join(root, 'odd/hard-4'))
        await run('cp', ['--archive', join(root, 'odd/hard-1'), join(root, 'odd/hard-4')])
      }),
  },
  'a copy that became a hard link': {
    expected: [
      'odd/page links',
      'odd/page-and-one links',
      'odd/page-and-one sameAs',
      'odd/page-and-one sizeBytes',
      'odd/page-and-one content',
    ],
    tamper: async (root) =>
      await keepingTime(root, 'odd', async () => {
        await rm(join(root, 'odd/page-and-one'))
        await link(join(root, 'odd/page'), join(root, 'odd/page-and-one'))
      }),
  },
  'a directory in a directory': {
    expected: ['odd/many links', 'odd/many/new presence'],
    tamper: async (root) => await keepingTime(root, 'odd/many', async () => await mkdir(join(root, 'odd/many/new'))),
  },
}

async function keepingTimeOfReplaced(
  root: string,
  path: string,
  make: (path: string) => Promise<unknown>,
): Promise<void> {
  await keepingTime(root, path, async () => {
    await rm(join(root, path))
    await make(join(root, path))
  })
}

for (const [what, { expected, tamper }] of Object.entries(changes)) {
  test(`finds ${what}`, async () => {
    assert.deepEqual((await found(tamper)).sort(), [...expected].sort())
  })
}

test('compares two directories', async () => {
  assert.deepEqual(await compareTrees(originalPath, originalPath), [])
})
