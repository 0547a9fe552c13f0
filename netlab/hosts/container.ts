import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LabHost } from './lab-host.ts'
import { exited, lastLines } from './process.ts'

/** A program of an image, and the line that says that it is ready. */
export interface ContainerProgram {
  program: readonly string[]
  /** `NAME=VALUE`. */
  env: readonly string[]
  readyLine: RegExp
}

/** A limit for programs that never get ready, with room for a slow link and a busy machine. */
const readyTimeoutMs = 300_000

/**
 * Runs a program to its end in a container of runc. Its root is `tree`, read-only, and it has the network of the host.
 *
 * @param onReady called when its ready line has come
 * @throws unavailable, with what it printed, if it ends without that line or fails; timeout if neither happens
 */
export async function runContainer(
  host: LabHost,
  tree: string,
  program: ContainerProgram,
  onReady: () => void,
): Promise<void> {
  const id = `${host.name}-${process.pid}-${Math.floor(Math.random() * 1e6)}`
  const bundle = join(host.directory, 'bundles', id)
  await mkdir(bundle, { recursive: true })
  await writeFile(join(bundle, 'config.json'), JSON.stringify(runtimeConfig(tree, program)))
  const args = ['--root', join(host.directory, 'runc'), 'run', '--bundle', bundle, id]
  const child = await host.start('runc', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let [printed, ready] = ['', false]
  const take = (piece: Buffer): void => {
    printed += piece.toString()
    if (ready || !program.readyLine.test(printed)) return
    ready = true
    onReady()
  }
  child.stdout!.on('data', take)
  child.stderr!.on('data', take)
  const late = setTimeout(() => void child.kill('SIGKILL'), readyTimeoutMs)
  await exited(child)
  clearTimeout(late)
  await rm(bundle, { recursive: true })
  if (child.signalCode !== null)
    throw new P2pfsError('timeout', `${program.program.join(' ')} is not ready: ${lastLines(printed, 10)}`)
  if (!ready || child.exitCode !== 0)
    throw new P2pfsError('unavailable', `${program.program.join(' ')}: ${lastLines(printed, 10)}`)
}

/** OCI runtime-spec, config.md, for a program that only reads, computes and prints. */
function runtimeConfig(tree: string, { program, env }: ContainerProgram): object {
  return {
    ociVersion: '1.0.2',
    root: { path: tree, readonly: true },
    process: { args: program, env, cwd: '/', user: { uid: 0, gid: 0 }, noNewPrivileges: true },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=65536k'] },
      { destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'mode=1777'] },
    ],
    linux: { namespaces: ['pid', 'mount', 'ipc', 'uts'].map((type) => ({ type })) },
  }
}
