import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { ExportResult, InspectResult, MountResult, SeedResult } from '../../../node/control/api.ts'
import { compareTrees, describeDifferences } from '../../../netlab/images/tree-compare.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { copyOddImage } from '../lab-image.ts'

const hash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

/** A prepared tree with what trees have; sockets are no part of an image. */
function makeTree(directory: string): void {
  mkdirSync(join(directory, 'sub/deep'), { recursive: true })
  writeFileSync(join(directory, 'sub/file'), createRandom(5).bytes(700_000))
  const shell = `ln sub/file hard && ln -s ../x sub/link && mkfifo -m 600 fifo && mknod disk b 259 70000 && chown 3000000000:5 hard &&
    setfattr -n user.note -v value sub/deep && setfattr -n trusted.note -v value sub/deep && setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 sub/file &&
    truncate -s 40M sparse && printf end | dd of=sparse bs=1 seek=20000001 conv=notrunc status=none && touch -d '1960-01-01 00:00:00.5 UTC' sparse && touch -d '2100-01-01 00:00:00.000000001 UTC' sub/deep sub`
  execFileSync('sh', ['-c', shell], { cwd: directory })
  writeFileSync(Buffer.concat([Buffer.from(`${directory}/caf`), Buffer.of(0xe9)]), 'latin')
}

test('a directory and a tar of it become the same image, equal to the tree', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const source = daemon.target('source')
  makeTree(source)
  const fromDirectory = await daemon.json<SeedResult>('import', source, 'team/app:v1', '--format', 'erofs')
  assert.equal(fromDirectory.reference, 'local:team/app:v1')
  assert.ok(fromDirectory.sizeBytes < 2_000_000, 'holes stay holes')
  const again = await daemon.json<SeedResult>('import', source, 'again', '--format', 'erofs')
  assert.equal(again.digest, fromDirectory.digest, 'nothing depends on when it is made')
  const tree = daemon.target('tree')
  await daemon.json<MountResult>('mount', 'local:team/app:v1', tree, '--as', 'tree')
  assert.equal(describeDifferences(await compareTrees(source, tree)), '')
  const tar = join(daemon.directory, 'tree.tar.gz')
  execFileSync('tar', ['--format=pax', '-S', '--xattrs', '--xattrs-include=*', '-C', source, '-czf', tar, '.'])
  await daemon.json<SeedResult>('import', tar, 'from-tar')
  const second = daemon.target('second')
  await daemon.json<MountResult>('mount', 'local:from-tar', second, '--as', 'tree', '--format', 'ext4')
  assert.equal(describeDifferences(await compareTrees(source, second)), '')
})

test('an OCI layout imported by name is the image that it was, and stands without its source', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const seeded = await daemon.json<SeedResult>('seed', image)
  const imported = await daemon.json<SeedResult>('import', image, 'odd')
  assert.deepEqual([imported.digest, imported.reference], [seeded.digest, 'local:odd'])
  execFileSync('rm', ['-r', join(daemon.directory, 'image')])
  await daemon.json<MountResult>('mount', 'local:odd', daemon.target('x'), '--as', 'tree')
  const reseeded = await daemon.json<SeedResult>('seed', 'local:odd')
  assert.equal(reseeded.digest, seeded.digest)
})

test('what cannot be imported is refused with the reason, and leaves no image', async (t) => {
  const daemon = await DaemonProcess.start(t)
  writeFileSync(join(daemon.directory, 'text'), 'not a tar at all'.repeat(100))
  const cases: [argv: string[], message: RegExp, status?: number][] = [
    [['import', join(daemon.directory, 'nowhere'), 'x'], /there is no .*nowhere/],
    [['import', join(daemon.directory, 'text'), 'x'], /text is no tar; import takes/],
    [['import', '/dev/null', 'x'], /neither a directory nor a file/],
    [['import', daemon.directory, 'Bad Name'], /a local name has lower-case letters/, 2],
    [['import', 'oci:/nowhere', 'x'], /no OCI layout/],
    [
      ['mount', 'local:x', daemon.target('x')],
      /neither this host nor a peer that it reaches has all of local:x; such images are made by p2pfs import/,
    ],
    [['inspect', 'local:x'], /knows local:x/],
  ]
  for (const [argv, pattern, expected = 1] of cases) {
    const { status, stderr } = await daemon.cli(...argv)
    assert.equal(status, expected, stderr)
    assert.match(stderr, pattern)
  }
  assert.deepEqual((await daemon.status()).images, [])
})

test('an export is the image file, sparse, in either format; it fails without leaving half of one', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  for (const format of ['ext4', 'erofs']) {
    const file = join(daemon.directory, `image.${format}`)
    const { sizeBytes } = await daemon.json<ExportResult>('export', image, file, '--format', format)
    assert.equal(statSync(file).size, sizeBytes)
    execFileSync(format === 'ext4' ? 'e2fsck' : 'fsck.erofs', format === 'ext4' ? ['-fn', file] : [file], {
      stdio: 'ignore',
    })
    const target = daemon.target(format)
    const { rootfs } = await daemon.json<MountResult>('mount', image, target, '--format', format)
    assert.equal(hash(rootfs), hash(file))
  }
  const refused = await daemon.cli('export', image, join(daemon.directory, 'nowhere/file'))
  assert.match(refused.stderr, /there is no .*nowhere/)
  assert.deepEqual(
    readdirSync(daemon.directory).filter((name) => name.includes('partial')),
    [],
  )
})

test('ext4 and erofs of an image have the same chunks; only the metadata differs', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const ext4 = await daemon.json<InspectResult>('inspect', image).catch(() => undefined)
  assert.equal(ext4, undefined, 'nothing is imported to be looked at')
  await daemon.json<SeedResult>('seed', image)
  const before = await daemon.status()
  await daemon.json<SeedResult>('seed', image, '--format', 'erofs')
  const after = await daemon.status()
  const [one, two] = [
    await daemon.json<InspectResult>('inspect', image),
    await daemon.json<InspectResult>('inspect', image, '--format', 'erofs'),
  ]
  assert.deepEqual(one.layers, two.layers)
  assert.notEqual(one.digest, two.digest)
  assert.ok(two.metadataBytes < one.metadataBytes)
  assert.equal(after.chunks - before.chunks, Math.ceil(two.metadataBytes / (128 * 1024)))
  assert.equal(two.localBytes, two.sizeBytes)
})

test('images that share layers or files share chunks, and say so', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const source = daemon.target('source')
  mkdirSync(join(source, 'files'))
  const random = createRandom(11)
  for (let i = 0; i < 200; i++) writeFileSync(join(source, 'files', `file-${i}`), random.bytes(20_000))
  await daemon.json<SeedResult>('import', source, 'app:v1')
  writeFileSync(join(source, 'files/file-50'), random.bytes(20_000))
  await daemon.json<SeedResult>('import', source, 'app:v2')
  const { sharing, layers, sizeBytes } = await daemon.json<InspectResult>('inspect', 'local:app:v2')
  assert.equal(sharing[0]?.reference, 'local:app:v1')
  assert.ok(
    sharing[0].sharedBytes > 0.8 * sizeBytes && sharing[0].sharedBytes < sizeBytes,
    `${sharing[0].sharedBytes} of ${sizeBytes}`,
  )
  assert.deepEqual(layers[0]?.entries, { directory: 2, file: 200 })
  assert.match((await daemon.cli('inspect', 'local:app:v2')).stdout, /shares with\n {2}local:app:v1/)
})
