import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { LabHost } from './network.ts'
import { NodeProcess, type NodeProcessOptions } from './node-process.ts'
import { run } from './process.ts'

/** A daemon that knows nothing. */
export async function startEmpty(host: LabHost, options: NodeProcessOptions): Promise<NodeProcess> {
  await rm(join(host.directory, 'state'), { recursive: true, force: true })
  await run('sync', [])
  return await NodeProcess.start(host, options)
}
