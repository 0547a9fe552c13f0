/** A program: a registry that obeys the process which started it. */
import { FaultRegistry } from '../../test/support/registry/fault-registry.ts'
import type { FromFaultRegistry, ToFaultRegistry } from './fault-registry-messages.ts'

let registry: FaultRegistry | undefined

async function answer(message: ToFaultRegistry): Promise<FromFaultRegistry> {
  if ('setUp' in message) {
    const { layouts, ...options } = message.setUp
    registry = await FaultRegistry.start(options)
    for (const [repository, directory] of Object.entries(layouts)) await registry.addLayout(repository, directory)
  } else if ('addFault' in message) registry?.faults.add(message.addFault)
  else if ('clearFaults' in message) registry?.faults.clear()
  else return { log: registry?.front.log ?? [] }
  return { done: true }
}

process.on('message', (message: ToFaultRegistry) => {
  void answer(message).then((done) => process.send?.(done))
})
process.on('disconnect', () => process.exit())
