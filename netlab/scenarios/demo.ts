import { debianImages } from '../images/images.ts'
import { complaints, runPeerReads } from './peer-reads.ts'

/** The link of a small machine in a data centre. */
const rateBitsPerSecond = 1e9
/** Enough to show that no reader notices; the test kills twenty times. */
const kills = 3

const startedAt = performance.now()
const tell = (line: string): void => {
  const elapsed = ((performance.now() - startedAt) / 1000).toFixed(1).padStart(5)
  process.stdout.write(`${elapsed} s  ${line}\n`)
}

tell('Preparing an image of real Debian packages (a minute the first time, cached after that) ...')
const { gzip: image } = await debianImages()
const outcome = await runPeerReads(image, { kills, rateBitsPerSecond, tell })
tell('Everything is torn down again: no process, mount, loop device or namespace is left.')
const found = complaints(outcome)
for (const complaint of found) process.stderr.write(`demo: ${complaint}\n`)
process.exitCode = found.length === 0 ? 0 : 1
