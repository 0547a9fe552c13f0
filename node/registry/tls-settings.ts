/** TLS settings for the servers of one registry, besides those of all. */
export interface TlsSettings {
  /** Certificates of authorities in PEM. */
  authorities: readonly string[]
  /** Certificates and keys in PEM that the client shows. */
  clients: readonly { cert: string; key: string }[]
  /** False: any certificate will do. */
  verify: boolean
}

/** Settings, and the server that they are for. */
export interface ServerTls {
  hostname: string
  settings: TlsSettings
}

/**
 * The settings for one URL of a request. Its token service and its storage may have certificates of the same authority;
 * client certificates, and the leave not to verify, are for the server itself: what is sent to another host may be a
 * password for that one.
 */
export function settingsFor({ hostname }: URL, tls: ServerTls | undefined): TlsSettings | undefined {
  if (tls === undefined || hostname === tls.hostname) return tls?.settings
  const { authorities } = tls.settings
  return authorities.length === 0 ? undefined : { authorities, clients: [], verify: true }
}
