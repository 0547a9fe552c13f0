import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { isMainThread } from 'node:worker_threads'

/**
 * Loaded into a daemon (`--import`): measures how late the events of its main thread are, and writes that (ns) to the
 * file that P2PFS_LOOP_DELAY_FILE names. Where the file is gone, it begins anew. Other processes and threads load it
 * and do nothing.
 */
const file = process.env['P2PFS_LOOP_DELAY_FILE']
/** A tenth of a second, so that a bench need not wait long (ms). */
const writeMs = 100
/** How often the delay is sampled (ms). The histogram has the whole time between two samples. */
const resolutionMs = 1

if (file !== undefined && isMainThread && process.argv[1]?.endsWith('/node/main.ts') === true) {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs })
  delay.enable()
  setInterval(() => {
    if (!existsSync(file)) delay.reset()
    writeFileSync(`${file}.new`, JSON.stringify({ p99: delay.count === 0 ? 0 : delay.percentile(99) }))
    renameSync(`${file}.new`, file)
  }, writeMs).unref()
}
