import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { BurstLab } from '../../../netlab/bench/burst-start.ts'
import { copiesOf, formatCopies } from '../../../netlab/bench/request-copies.ts'
import { layersOf, type ColdImage } from '../../../netlab/images/cold-images.ts'
import { debianImages } from '../../../netlab/images/images.ts'
import type { TimedRequest } from '../../../netlab/registry/logging-proxy-main.ts'

const rates = { registryBitsPerSecond: 25e6, hostBitsPerSecond: 1e9 }
/**
 * Bytes of layers, and of the publication, that the registry may send, in those of one host. Hosts that read each by themselves
 * fetch nearly one copy each: five of six were measured. Those that ask stewards fetch 1.0 to 1.1, and up to 2.0 where thirty
 * processes want the two cores: then members that are there answer after seconds, and are passed over. Half a copy for each host
 * tells one from the other on such a machine, too; who is waited for, and how long, is for unit tests to say.
 */
const maxCopiesOf = (hosts: number): number => hosts / 2

async function burst(context: TestContext, hosts: number, options: { fullMesh?: number } = {}): Promise<void> {
  const { packages } = await debianImages()
  const layers = await layersOf(packages)
  const compressedBytes = layers.reduce((sum, { size }) => sum + size, 0)
  const program = ['sh', '-c', 'git --version && exec perl -MList::Util -e "print qq(ready\\n)"']
  const image: ColdImage = { ...packages, program, env: ['PATH=/usr/bin:/bin'], readyLine: /^ready$/m, compressedBytes }
  await using lab = await BurstLab.create({ logRequests: true, ...options })
  const { requests } = await lab.start(image, 'profile', hosts, rates)
  for (const line of formatCopies(requests!).split('\n')) context.diagnostic(line)
  const isOfLayer = ({ path }: TimedRequest): boolean => layers.some(({ digest }) => path.endsWith(digest))
  const isWholeBlob = ({ path, range }: TimedRequest): boolean => path.includes('/blobs/') && range === undefined
  for (const [what, some] of [
    ['the layers', requests!.filter(isOfLayer)],
    ['the publication', requests!.filter((request) => isWholeBlob(request) && !isOfLayer(request))],
  ] as const) {
    const { bytes, distinctBytes } = copiesOf(some)
    assert.ok(distinctBytes > 0, `nothing was read of ${what}`)
    assert.ok(
      bytes < maxCopiesOf(hosts) * distinctBytes,
      `${what}: ${bytes} bytes, of which ${distinctBytes} are different ones`,
    )
  }
}

test('six empty hosts that start an image at once have the registry read nearly once for all', async (context) => {
  await burst(context, 6)
})

test('the same of nine hosts that are connected to a part of their region only', async (context) => {
  await burst(context, 9, { fullMesh: 4 })
})
