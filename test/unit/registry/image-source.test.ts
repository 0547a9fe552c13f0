import { createClient, startRegistry } from '../../support/registry/fault-client.ts'
import { testImageSource } from '../../support/registry/image-source-suite.ts'
import { emptyLayout } from '../../support/registry/empty-layout.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ImageSource } from '../../../node/registry/image-source.ts'
import { OciLayout } from '../../../node/registry/oci-layout.ts'

testImageSource('a registry with the referrers API', async (t) => {
  const { source, reference } = createClient(t, (await startRegistry(t, { referrersPerPage: 2 })).authority)
  return { source, reference }
})

testImageSource('a registry without the referrers API', async (t) => {
  const { source, reference } = createClient(t, (await startRegistry(t, { referrersApi: false })).authority)
  return { source, reference }
})

testImageSource('a registry that wants a token', async (t) => {
  const user = { username: 'u', password: 'p' }
  const access = { kind: 'bearer', tokenLifeMs: 60_000 } as const
  const server = await startRegistry(t, { access, users: [user], referrersApi: false })
  const credentials = { find: async () => ({ ...user, identityToken: undefined }) }
  const { source, reference } = createClient(t, server.authority, { credentials })
  return { source, reference }
})

testImageSource('an OCI layout', async (t) => {
  const { registry } = createClient(t, 'unused.test')
  return { source: new ImageSource({ registry, layout: new OciLayout(), log: silentLog }), reference: emptyLayout(t) }
})
