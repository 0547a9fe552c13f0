import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../hosts/process.ts'

/** The recipe of the Debian image. A change makes a new image. */
export const debianRecipe = {
  version: 1,
  suite: 'bookworm',
  /** Later timestamps, which come from the build, become this one (seconds): 2024-06-01. */
  epochSeconds: 1_717_200_000,
  excludes: ['/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/man/*', '/usr/share/info/*'],
  application: ['python3', 'git'],
} as const

/** Used if this machine's apt names no mirror for the suite. */
export const defaultMirror = 'http://deb.debian.org/debian'

interface BuildOptions {
  signal?: AbortSignal
}

/**
 * Makes the tars of a real system: `base.tar` with Debian's essential packages, and `application.tar` with the files
 * that some packages and their dependencies add. The mirror is the one of this machine's apt.
 *
 * @throws unsupported without mmdebstrap; unavailable if the mirror does not answer
 */
export async function buildDebianLayers(
  directory: string,
  options: BuildOptions = {},
): Promise<{ base: string; application: string }> {
  const base = join(directory, 'base.tar')
  const application = join(directory, 'application.tar')
  const tree = join(directory, 'application')
  const extracted = join(directory, 'extracted.tar')
  const mirror = (await mirrorsOfMachine(options)).get(debianRecipe.suite) ?? defaultMirror
  const env = { ...process.env, SOURCE_DATE_EPOCH: String(debianRecipe.epochSeconds), LC_ALL: 'C.UTF-8' }
  const excludes = debianRecipe.excludes.map((path) => `--dpkgopt=path-exclude=${path}`)
  const bootstrap = async (target: string, ...args: string[]): Promise<void> => {
    const flags = ['--quiet', '--mode=root', '--format=tar', ...excludes, ...args]
    await run('mmdebstrap', [...flags, debianRecipe.suite, target, mirror], { env, ...options })
  }
  await Promise.all([
    bootstrap(base, '--variant=essential'),
    bootstrap(extracted, '--variant=extract', `--include=${debianRecipe.application.join(',')}`),
  ])
  const inBase = new Set(await namesOf(base, options))
  const added = (await namesOf(extracted, options)).filter(
    (name) => name.startsWith('./usr/') && !name.endsWith('/') && !inBase.has(name),
  )
  await mkdir(tree)
  await run(
    'tar',
    ['--extract', `--file=${extracted}`, `--directory=${tree}`, '--null', '--verbatim-files-from', '--files-from=-'],
    {
      input: Buffer.from(added.map((name) => `${name}\0`).join(''), 'latin1'),
      ...options,
    },
  )
  const clamp = [`--mtime=@${debianRecipe.epochSeconds}`, '--clamp-mtime', '--sort=name', '--numeric-owner']
  const pax = ['--format=pax', '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime', '--xattrs']
  await run('tar', ['--create', `--file=${application}`, `--directory=${tree}`, ...clamp, ...pax, 'usr'], options)
  await rm(tree, { recursive: true })
  await rm(extracted)
  return { base, application }
}

/** The mirrors of this machine's apt, by suite. */
export async function mirrorsOfMachine(options: BuildOptions): Promise<Map<string, string>> {
  const { stdout } = await run(
    'apt-get',
    ['indextargets', '--format', '$(CREATED_BY) $(CODENAME) $(REPO_URI)'],
    options,
  )
  const targets = stdout
    .toString()
    .split('\n')
    .map((line) => line.split(' '))
  return new Map(targets.filter(([kind]) => kind === 'Packages').map(([, suite = '', mirror = '']) => [suite, mirror]))
}

/** The names in a tar, unchanged, in Latin-1. */
async function namesOf(tar: string, options: BuildOptions): Promise<string[]> {
  const { stdout } = await run('tar', ['--list', `--file=${tar}`, '--quoting-style=literal'], options)
  return stdout.toString('latin1').split('\n').filter(Boolean)
}
