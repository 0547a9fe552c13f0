import type { Auth } from '../node/control/api.ts'
import { P2pfsError } from '../protocol/errors.ts'
import { UsageError } from './failure.ts'
import { printNote } from './output.ts'

/** Options of the commands that ask a registry. */
export const authOptions = {
  authfile: {
    value: 'FILE',
    help:
      "ask the registry with the credentials of this file, as docker login writes it, instead of the daemon's; only " +
      'those for this registry are sent to the daemon, which keeps them in memory',
    completes: 'file',
  },
  'creds-stdin': { help: 'the same, with USER:PASSWORD from standard input' },
} as const

interface AuthValues {
  authfile?: string
  'creds-stdin'?: boolean
}

/** USER:PASSWORD is a line (characters). */
const maxInputLength = 64 * 1024

/**
 * The credentials that the options give for the registry of an image. The file is read here, with the rights of the user,
 * and so are the credential helpers that it names run.
 * @returns the rest of the options, and what a request takes
 * @throws UsageError; invalid, missing for a file that is no such file, or has none for the registry
 */
export async function withAuth<Values extends AuthValues>(
  image: string,
  { authfile, 'creds-stdin': isInput, ...rest }: Values,
): Promise<{ auth: { auth?: Auth }; rest: Omit<Values, keyof AuthValues> }> {
  if (authfile !== undefined && isInput === true)
    throw new UsageError('--authfile and --creds-stdin exclude each other')
  if (isInput === true) return { auth: { auth: parseCredentials(await readInput()) }, rest }
  return { auth: authfile === undefined ? {} : { auth: await findInFile(authfile, image) }, rest }
}

/** Loaded here: the other commands need none of it. */
async function findInFile(file: string, image: string): Promise<Auth> {
  const { DockerCredentials, readDockerConfig } = await import('../node/registry/credentials.ts')
  const { parseReference } = await import('../node/registry/reference.ts')
  const reference = parseReference(image)
  if (reference.kind !== 'registry')
    throw new UsageError('--authfile is for an image in a registry; this one is in none')
  await readDockerConfig(file).catch((error: unknown) => {
    const { code, message } = error as NodeJS.ErrnoException
    throw code === 'ENOENT' || code === 'EACCES' || code === 'EISDIR'
      ? new P2pfsError('missing', `cannot read ${file}: ${message}`)
      : error
  })
  const quiet = (): void => undefined
  const warn = (message: string, { error }: { error?: unknown } = {}): void =>
    printNote(`${message}: ${(error as Error | undefined)?.message ?? ''}`)
  const log = { error: quiet, warn, info: quiet, debug: quiet, child: () => log }
  const { registry, repository } = reference
  const { signal } = new AbortController()
  const found = await new DockerCredentials({ log }, { file }).find(registry, { repository, signal })
  if (found === undefined) throw new P2pfsError('missing', `${file} has no credentials for ${registry}/${repository}`)
  const { username, password, identityToken, registryToken } = found
  return {
    ...(username !== '' && { username, password }),
    ...(identityToken !== undefined && { identityToken }),
    ...(registryToken !== undefined && { registryToken }),
  }
}

/** @throws UsageError, which quotes nothing */
function parseCredentials(text: string): Auth {
  const line = text.replace(/\r?\n$/, '')
  const colon = line.indexOf(':')
  if (colon < 1 || /[\r\n]/.test(line)) throw new UsageError('--creds-stdin takes one line, USER:PASSWORD')
  return { username: line.slice(0, colon), password: line.slice(colon + 1) }
}

async function readInput(): Promise<string> {
  let text = ''
  for await (const piece of process.stdin.setEncoding('utf8') as AsyncIterable<string>) {
    text += piece
    if (text.length > maxInputLength) throw new UsageError('--creds-stdin takes one line, USER:PASSWORD')
  }
  return text
}
