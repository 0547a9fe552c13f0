import type { Status, WaitingReadReport } from '../node/control/api.ts'
import { shortName } from './output.ts'

/** The lines that say which reads of mounts wait, for whom, and when they fail; none where nothing waits or has failed. */
export function describeWaiting({ readErrors, waitingReads: { count, slow, longest } }: Status): string[] {
  const errors = readErrors === 0 ? '' : `; ${readErrors} ${readErrors === 1 ? 'has' : 'have'} failed with an I/O error`
  if (count === 0) return readErrors === 0 ? [] : [`waiting       no read${errors}`]
  return [
    `waiting       ${count} ${count === 1 ? 'read' : 'reads'}, ${slow} of them for 2 s or more${errors}`,
    ...longest.map(describeWaitingRead),
  ]
}

function describeWaitingRead(read: WaitingReadReport): string {
  const nameOf = ({ peer, name }: { peer: string; name?: string }): string =>
    name === undefined ? peer : shortName(name)
  const asked = [...read.asked.map(nameOf), ...(read.registry === 'asked' ? ['the registry'] : [])]
  const failed = [
    ...read.refusals.map((refusal) => `${nameOf(refusal)}: ${refusal.code}`),
    ...(read.registry === undefined || read.registry === 'asked' ? [] : [`registry: ${read.registry}`]),
    ...(read.failure === undefined ? [] : [`last try: ${read.failure}`]),
  ]
  const what = read.images.join(', ') || read.rootfs
  const times = `for ${Math.round(read.waitedSeconds)} s, fails in ${Math.round(read.failsInSeconds)} s`
  const whom = asked.length === 0 ? 'nobody is asked now' : `waits for ${asked.join(', ')}`
  return `  ${what}: ${times}; ${whom}${failed.length === 0 ? '' : ` (${failed.join(', ')})`}`
}
