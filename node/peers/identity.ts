import { randomBytes } from 'node:crypto'
import { open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { P2pfsError } from '../../protocol/errors.ts'
import { syncDirectory } from '../base/sync-directory.ts'

/**
 * Loads this host's Ed25519 key; makes it where the file does not exist yet.
 * @throws invalid where the file is not a key
 */
export async function loadIdentity(file: string): Promise<PrivateKey> {
  let bytes: Uint8Array
  try {
    bytes = await readFile(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return await createIdentity(file)
  }
  try {
    return privateKeyFromProtobuf(bytes)
  } catch (cause) {
    throw new P2pfsError('invalid', `${file} is not a peer identity; restore it, or remove it to get a new one`, {
      cause,
    })
  }
}

async function createIdentity(file: string): Promise<PrivateKey> {
  const key = await generateKeyPair('Ed25519')
  const temporary = `${file}.${randomBytes(4).toString('hex')}`
  const handle = await open(temporary, 'wx', 0o600)
  try {
    await handle.writeFile(privateKeyToProtobuf(key))
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(temporary, file)
  // Peers know this host by it from now on.
  await syncDirectory(dirname(file))
  return key
}
