/** A program with a lab, a process and a mount in it, that ends as its argument says. */
import { Network } from '../../../netlab/hosts/network.ts'
import { run } from '../../../netlab/hosts/process.ts'

const network = await Network.create()
const host = await network.addHost('a')
await host.start('sleep', ['1000'])
await run('mount', ['-t', 'tmpfs', 'lab', host.directory])
process.stdout.write(`${network.name}\n`)

const ending = process.argv[2]
setTimeout(() => {
  if (ending === 'exception') throw new Error('uncaught')
  if (ending === 'rejection') void Promise.reject(new Error('unhandled'))
  if (ending === 'exit') process.exit(0)
}, 50)
