import assert from 'node:assert/strict'
import { test } from 'node:test'
import { oddImage } from '../../../netlab/images/images.ts'
import { Network } from '../../../netlab/hosts/network.ts'
import { Registry } from '../../../netlab/registry/registry.ts'

test('serves a pushed image to the hosts of its network, layers unchanged, until its link is cut', async () => {
  const image = await oddImage()
  await using network = await Network.create()
  const registry = await Registry.start(await network.addHost('registry'))
  const reference = await registry.push(image, 'lab/odd:1')
  const host = await network.addHost('a')
  const inspect = ['--insecure-policy', 'inspect', '--raw']
  const source = await host.run('skopeo', [...inspect, `oci:${image.layoutDirectory}:${image.tag}`])
  const pushed = await host.run('skopeo', [...inspect, '--tls-verify=false', `docker://${reference}`])
  assert.equal(pushed.stdout.toString(), source.stdout.toString())
  await registry.host.cut()
  const signal = AbortSignal.timeout(1000)
  await assert.rejects(host.run('skopeo', [...inspect, '--tls-verify=false', `docker://${reference}`], { signal }))
})
