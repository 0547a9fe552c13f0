import { readFileSync } from 'node:fs'

/** Ticks of the CPU times in /proc (proc(5)) in a second. */
const ticksPerSecond = 100

/** CPU time of a process and all its threads, user and system (s). */
export function cpuSecondsOf(pid: number | undefined): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Parses the output of the shell's `times`: the CPU time of the children that it has waited for, user and system (s). */
export function cpuSecondsOfTimes(output: string): number {
  const [user = Number.NaN, system = Number.NaN] = [
    ...output
      .trim()
      .split('\n')
      .at(-1)!
      .matchAll(/(\d+)m([\d.]+)s/g),
  ].map(([, minutes, seconds]) => Number(minutes) * 60 + Number(seconds))
  return user + system
}
