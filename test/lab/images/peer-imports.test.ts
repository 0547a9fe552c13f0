import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import type { SeedResult } from '../../../node/control/api.ts'
import { rendezvous } from '../../../node/peers/rendezvous.ts'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { DaemonProcess } from '../daemon-process.ts'

/** How the steward is set, whether it imports for the other host, and what its log says if not. */
const settings: [string[], boolean, RegExp | undefined][] = [
  [[], false, /not to import from for others.*"registry":"127\.0\.0\.1:\d+"/],
  [['--import-for-peers', 'none'], false, /is not imported from for peers/],
  // The registry is on loopback, and nobody has named it.
  [['--import-for-peers', 'all'], false, /127\.0\.0\.1 is in a network that requests for others do not lead to/],
  [['--peer-registry', 'REGISTRY'], true, undefined],
  [['--registry-mirror', 'REGISTRY=http://REGISTRY'], true, undefined],
  [['--import-for-peers', 'all', '--peer-registry', 'REGISTRY'], true, undefined],
]

for (const [given, isImported, why] of settings) {
  const what = given.join(' ') || 'nothing'
  test(`a steward with ${what} ${isImported ? 'imports' : 'does not import'} from a registry on loopback for peers`, async (t) => {
    const registry = await FaultRegistry.start()
    t.after(async () => await registry[Symbol.asyncDispose]())
    const { authority } = registry
    const options = ['--insecure-registry', authority, '--platform', 'linux/amd64', '--log-level', 'debug']
    const steward = await DaemonProcess.start(t, [
      ...options,
      ...given.map((text) => text.replaceAll('REGISTRY', authority)),
    ])
    const asker = await DaemonProcess.start(t, [...options, '--bootstrap', (await steward.status()).addresses[0]!])
    while ((await asker.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))

    const tar = writeTar([{ path: 'data', type: 'file', content: Buffer.from('content') }])
    const layer = registry.addBlob(gzipSync(tar), 'application/vnd.oci.image.layer.v1.tar+gzip')
    const ids = [(await steward.status()).peerId, (await asker.status()).peerId]
    // One of so many images is the steward's to import.
    for (let version = 0; ; version++) {
      const config = registry.addBlob(
        Buffer.from(
          JSON.stringify({
            os: 'linux',
            architecture: 'amd64',
            config: { Labels: { version: String(version) } },
            rootfs: { type: 'layers', diff_ids: [digestOf(tar)] },
          }),
        ),
        'application/vnd.oci.image.config.v1+json',
      )
      const manifest = JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer] })
      registry.addManifest('lab/app', 'v', manifest, mediaTypes.ociManifest)
      if (rendezvous(digestOf(Buffer.from(manifest)), ids)[0] === ids[0]) break
    }
    const { origin } = await asker.json<SeedResult>('seed', `${authority}/lab/app:v`)
    assert.equal(origin, isImported ? 'peer' : 'built')
    // One request of the asker for the manifest, and none of a steward that refuses.
    const manifests = registry.front.log.filter(({ path }) => path.endsWith('/manifests/v'))
    assert.equal(manifests.length, isImported ? 2 : 1)
    if (why === undefined) assert.match(steward.log, /image has been imported for a peer/)
    else {
      assert.match(steward.log, why)
      assert.match(asker.log, /steward does not import the image.*"code":"denied"/)
    }
  })
}
