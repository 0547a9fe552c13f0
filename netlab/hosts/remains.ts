import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * All that a lab makes on the machine bears its name: namespaces `NAME-...`, and the directory `NAME` for files and
 * mounts.
 */
const labNames = /^p2pfs-(\d+)-\d+/
const namespaceDirectory = '/run/netns'

/** Killed processes take a while to close their files: attempts to unmount, and the pause between two. */
const unmountAttempts = 50
const unmountPauseMs = 100

/** The directory of the files and mounts of the lab `name`. */
export function labDirectory(name: string): string {
  return join(tmpdir(), name)
}

/**
 * Removes all that the lab `name` has made: kills the processes in its namespaces, unmounts everything in its
 * directory, frees loop devices, deletes the namespaces and the directory. It is synchronous, because it also runs
 * while the process exits, and it may be repeated.
 * @returns what could not be removed
 */
export function removeLab(name: string): string[] {
  const directory = labDirectory(name)
  for (const namespace of namespacesOf(name)) killNamespace(namespace)
  for (let attempt = 0; attempt < unmountAttempts; attempt++) {
    for (const mount of mountsUnder(directory)) spawnSync('umount', [mount])
    for (const device of loopDevicesOn(directory)) spawnSync('losetup', ['--detach', device])
    if (mountsUnder(directory).length === 0 && loopDevicesOn(directory).length === 0) break
    sleep(unmountPauseMs)
  }
  for (const mount of mountsUnder(directory)) spawnSync('umount', ['--lazy', mount])
  for (const namespace of namespacesOf(name)) spawnSync('ip', ['netns', 'delete', namespace])
  const busy = mountsUnder(directory)
  if (busy.length === 0) rmSync(directory, { recursive: true, force: true })
  return [...namespacesOf(name), ...busy, ...loopDevicesOn(directory), ...(existsSync(directory) ? [directory] : [])]
}

/** Removes the remains of labs whose process ended without cleaning up (SIGKILL, power). @returns their names */
export function removeDeadLabs(): string[] {
  const names = new Set<string>()
  for (const entry of [...list(namespaceDirectory), ...list(tmpdir())]) {
    const match = labNames.exec(entry)
    if (match !== null && !existsSync(`/proc/${match[1]}`)) names.add(match[0])
  }
  for (const name of names) removeLab(name)
  return [...names]
}

function namespacesOf(name: string): string[] {
  return list(namespaceDirectory).filter((entry) => entry.startsWith(`${name}-`))
}

function killNamespace(namespace: string): void {
  const pids = spawnSync('ip', ['netns', 'pids', namespace]).stdout?.toString().split('\n').filter(Boolean) ?? []
  for (const pid of pids) {
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch {
      // The process has ended by itself.
    }
  }
}

/** In the order in which they can be unmounted: innermost and latest first. */
function mountsUnder(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'latin1')
    .split('\n')
    .map((line) => unescapeOctal(line.split(' ')[4] ?? ''))
    .filter((path) => path.startsWith(`${directory}/`))
    .toReversed()
}

function loopDevicesOn(directory: string): string[] {
  return list('/sys/block')
    .filter((entry) => entry.startsWith('loop'))
    .filter((entry) => readText(`/sys/block/${entry}/loop/backing_file`).startsWith(`${directory}/`))
    .map((entry) => `/dev/${entry}`)
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)))
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}
