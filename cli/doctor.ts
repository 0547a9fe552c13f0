import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Check, DoctorRequest, DoctorResult, Status } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { isP2pfsError, P2pfsError } from '../protocol/errors.ts'
import { absoluteImage, imageArgument, platformOption } from './arguments.ts'
import { authOptions, withAuth } from './auth.ts'
import { describeCommand, parseCommand } from './command.ts'
import { makeBundle } from './doctor/bundle.ts'
import { thisHost } from './doctor/host.ts'
import { checkHost } from './doctor/host-checks.ts'
import { endOfFile, journal, metrics } from './doctor/sources.ts'
import { UsageError } from './failure.ts'
import { printJson, printLines, printNote } from './output.ts'

/** The daemon's own, where none runs that could say. */
const defaultStateDir = '/var/lib/p2pfs'
const defaultConfigFile = '/etc/p2pfs/config.json'

export const command = describeCommand({
  name: 'doctor',
  usage: ['[IMAGE]'],
  text: `Looks at what p2pfs needs on this host, and says what to do about what is lacking: kernel, tools, /dev/fuse, disk,
limits; and, if a daemon runs, whether members of the region reach this host, and whether its clock is right. With IMAGE also its
registry: the name, credentials, ranges of its layers.`,
  positionals: { IMAGE: { ...imageArgument.IMAGE, isOptional: true } },
  options: {
    ...platformOption,
    ...authOptions,
    bundle: {
      value: 'FILE.tgz',
      help:
        'write what somebody needs who helps: the checks, configuration, status, log and metrics, without passwords, tokens ' +
        'and keys. Names of images, hosts and files stay in it',
      completes: 'file',
    },
    log: {
      value: 'FILE',
      help: 'the log of the daemon, for --bundle',
      fallback: 'the journal of the unit p2pfs',
      completes: 'file',
    },
  },
  notes: 'Exit status: 0 if there is no problem, 1 if there is one. Warnings alone are no problem.',
})

/** The daemon's answer, or the reason why there is none. */
type Told = { status: Status; result: DoctorResult } | { silence: string }

export async function run(argv: string[]): Promise<number> {
  const { positionals, control, json, values } = parseCommand(argv, command)
  const [image] = positionals
  if (image === undefined && (values.authfile !== undefined || values['creds-stdin'] === true))
    throw new UsageError('credentials are for the registry of an IMAGE; name one')
  const { auth, rest } = await withAuth(image ?? '', values)
  const { platform, bundle, log } = rest
  if (log !== undefined && bundle === undefined) throw new UsageError('--log is for --bundle FILE.tgz')
  const request = {
    ...(image !== undefined && { image: absoluteImage(image, resolve) }),
    ...(platform !== undefined && { platform }),
    ...auth,
  }
  const told = await ask(request, control)
  const isTold = 'result' in told
  const stateDir = isTold ? told.result.stateDir : (process.env['P2PFS_STATE_DIR'] ?? defaultStateDir)
  const checks = [
    ...(await checkHost(thisHost, { stateDir, pid: isTold ? told.status.daemonPid : undefined })),
    ...(isTold ? told.result.checks : [leftOut(told.silence, image)]),
  ]
  if (bundle !== undefined) await writeBundle(bundle, { checks, told, control, log })
  if (json) printJson({ checks, ...(bundle !== undefined && { bundle: resolve(bundle) }) })
  else printLines(checks.flatMap(describeCheck))
  if (bundle !== undefined && !json)
    printNote(
      `${resolve(bundle)} is written; look into it before you give it to others: it names images, hosts and files`,
    )
  return checks.some(({ state }) => state === 'problem') ? 1 : 0
}

/** @throws what is wrong with the request itself */
async function ask(request: DoctorRequest, socket: string): Promise<Told> {
  try {
    return { status: await call('status', {}, { socket }), result: await call('doctor', request, { socket }) }
  } catch (error) {
    if (!isP2pfsError(error, 'unavailable', 'closed')) throw error
    return { silence: error.message }
  }
}

function leftOut(silence: string, image: string | undefined): Check {
  return {
    name: 'daemon',
    state: 'left-out',
    found: `${silence}. Left out: region, reached by peers, clock${image === undefined ? '' : ', registry, layers'}`,
  }
}

function describeCheck({ name, state, found, advice }: Check): string[] {
  return [
    `${state.padEnd(10)}${name.padEnd(18)}${found}`,
    ...(advice === undefined ? [] : [`${' '.repeat(28)}-> ${advice}`]),
  ]
}

async function writeBundle(
  file: string,
  { checks, told, control, log }: { checks: Check[]; told: Told; control: string; log: string | undefined },
): Promise<void> {
  const isTold = 'result' in told
  const content = makeBundle(
    {
      'checks.json': { time: new Date().toISOString(), kernel: thisHost.kernelRelease, node: process.version, checks },
      'config.json': isTold ? told.result.config : await thisHost.readText(defaultConfigFile),
      'status.json': isTold ? told.status : undefined,
      'log.jsonl': log === undefined ? await journal() : await endOfFile(log),
      'metrics.txt': isTold ? await metrics(control) : undefined,
    },
    Date.now(),
  )
  await writeFile(file, content, { flag: 'wx', mode: 0o600 }).catch((cause: unknown) => {
    throw new P2pfsError('conflict', `cannot write ${file}: ${(cause as Error).message}; choose another --bundle`, {
      cause,
    })
  })
}
