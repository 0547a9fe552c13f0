/** TLS settings for the servers of one registry, besides those of all. */
export interface TlsSettings {
  /** Certificates of authorities in PEM. */
  authorities: readonly string[]
  /** Certificates and keys in PEM that the client shows. */
  clients: readonly { cert: string; key: string }[]
  /** False: any certificate will do. */
  verify: boolean
}
