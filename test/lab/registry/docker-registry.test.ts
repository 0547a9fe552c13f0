import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createClient, fails, signal } from '../../support/registry/fault-client.ts'
import { testImageSource } from '../../support/registry/image-source-suite.ts'
import { startDockerRegistry } from './docker-registry.ts'

testImageSource("Debian's docker-registry", async (t) => {
  const { source, reference } = createClient(t, await startDockerRegistry(t))
  return { source, reference }
})

/** `htpasswd -B` of user:secret. */
const users = 'user:$2y$05$FuMLR6MJGBT9iOo36BoOpOZf9r0B4TZkLD.mIFP7LkJKOkk0j4ZZ.\n'
const login = (password: string) => ({ find: async () => ({ username: 'user', password, identityToken: undefined }) })

testImageSource('docker-registry with a password', async (t) => {
  const { source, reference } = createClient(t, await startDockerRegistry(t, users), { credentials: login('secret') })
  return { source, reference }
})

test('a missing or wrong password is denied, with what to do', async (t) => {
  const host = await startDockerRegistry(t, users)
  for (const options of [{}, { credentials: login('wrong') }]) {
    const { source, reference } = createClient(t, host, options)
    await assert.rejects(source.resolve(reference, 'linux/amd64', { signal }), fails('denied', /docker login/))
  }
})
