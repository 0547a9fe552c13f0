import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../hosts/process.ts'

const days = '2'

/** A certificate authority that nobody trusts by default, made with openssl. */
export class LabAuthority {
  /** The PEM file of its certificate. */
  readonly certificateFile: string
  readonly #directory: string
  #issued = 0

  private constructor(directory: string) {
    this.#directory = directory
    this.certificateFile = join(directory, 'ca.crt')
  }

  /** @throws unsupported without openssl */
  static async create(directory: string): Promise<LabAuthority> {
    await mkdir(directory, { recursive: true })
    const authority = new LabAuthority(directory)
    const key = [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-keyout',
      join(directory, 'ca.key'),
    ]
    await run('openssl', [
      'req',
      '-x509',
      ...key,
      '-out',
      authority.certificateFile,
      '-days',
      days,
      '-subj',
      '/CN=p2pfs lab authority',
    ])
    return authority
  }

  /** @param names the DNS names and IPv4 addresses of the certificate */
  async issue(names: readonly string[]): Promise<{ key: string; cert: string }> {
    const file = (end: string): string => join(this.#directory, `${this.#issued}.${end}`)
    this.#issued++
    const subjects = names.map((name) => `${/^[\d.]+$/.test(name) ? 'IP' : 'DNS'}:${name}`)
    await writeFile(file('ext'), `subjectAltName=${subjects.join(',')}\n`)
    await run('openssl', [
      'req',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-keyout',
      file('key'),
      '-out',
      file('csr'),
      '-subj',
      '/CN=lab',
    ])
    const signer = ['-CA', this.certificateFile, '-CAkey', join(this.#directory, 'ca.key'), '-CAcreateserial']
    await run('openssl', [
      'x509',
      '-req',
      '-in',
      file('csr'),
      ...signer,
      '-out',
      file('crt'),
      '-days',
      days,
      '-extfile',
      file('ext'),
    ])
    return { key: await readFile(file('key'), 'utf8'), cert: await readFile(file('crt'), 'utf8') }
  }
}
