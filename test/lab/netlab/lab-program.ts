/** A program that makes a lab with a process and a mount, and ends in the way of its argument. */
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
